"""A machine's own user at Redis: all that an agent and a worker do, and nothing beyond, on Redis and on Valkey."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleet_support import SIMULATION, one
from machine_support import KEYS, Box, M
from msgspec import structs
from queue_support import Server, free_port, job, until
from redis import exceptions as rexc

from emp_orch.fleet.observed import MachineStatus
from emp_orch.jobs.preview import Preview
from emp_orch.jobs.secrets import Secrets
from emp_orch.jobs.states import JobStatus
from emp_orch.store.claims import Claimed, Claims
from emp_orch.store.connect import Client, client
from emp_orch.store.job_reads import Wanted
from emp_orch.store.keys import Keys
from emp_orch.store.previews import Previews
from emp_orch.store.queue import Queue
from emp_orch.store.reports import read_worker
from emp_orch.store.scoped_access import grant, renew, user_of, with_login, withdraw

PASSWORD = "a/b:c@d"


@pytest.fixture
async def url(r: Client, server: Server) -> AsyncIterator[str]:
    """The way to Redis of a machine whose user is made."""
    assert await grant(r, KEYS, "f", M, PASSWORD)
    yield with_login(server.url, user_of("f", M), PASSWORD)
    await withdraw(r, "f", M)


@pytest.fixture
async def own(url: str) -> AsyncIterator[Client]:
    made = client(url)
    yield made
    await made.aclose()


async def test_a_machine_and_its_worker_do_all_their_work(r: Client, server: Server, url: str, tmp_path: Path) -> None:
    """Whatever they are denied, Redis writes down."""
    await r.execute_command("ACL", "LOG", "RESET")
    slow = [sys.executable, "-m", "emp_orch", "simulate", "--port", "${port}", "--dir", "pictures", "--steps", "10000"]
    service = structs.replace(SIMULATION, builtin=None, command=(*slow, "--step-ms", "50"), port=free_port())
    machine = one([service], num_gpus=1)
    box = Box(tmp_path, r, url)
    queue = Queue(r, KEYS)

    async def stands_at(job_id: str, status: JobStatus) -> bool:
        return (await queue.get(job_id)).status is status

    async def has_progress(job_id: str) -> bool:
        progress = (await queue.get(job_id)).progress
        return progress is not None and progress.fraction > 0

    async def began_again(job_id: str) -> bool:
        report = await read_worker(r, KEYS, f"{M}-worker-0")
        return report is not None and report.pid != first and report.current_job_id == job_id

    try:
        await box.start(machine)
        await box.until(lambda m: m.status is MachineStatus.READY)
        done = (await queue.submit(job(payload={"steps": 2}))).job_id
        failing = (await queue.submit(job(payload={"fail": "on purpose", "steps": 1}, max_retries=1))).job_id
        await until(lambda: stands_at(done, JobStatus.COMPLETED))
        await until(lambda: stands_at(failing, JobStatus.FAILED))
        # One that is cancelled in the middle, and one whose worker starts again in the middle.
        long = [(await queue.submit(job(payload={"steps": 2_000}))).job_id for _ in range(2)]
        await until(lambda: stands_at(long[0], JobStatus.IN_PROGRESS))
        await queue.cancel(long[0])
        await until(lambda: has_progress(long[1]))
        first = (await box.kill("redis-worker-gpu0")).pid
        await until(lambda: began_again(long[1]))
        await queue.cancel(long[1])
    except TimeoutError:
        raise AssertionError(f"{await queue.find(Wanted(), limit=9)}{await denied(r)}{box.logs()}") from None
    finally:
        await box.stop()
    assert [e.get("object") for e in await denied(r)] == [], box.logs()
    assert await box.report() is None, "it could not take its report away"


async def test_its_worker_has_the_secrets_of_its_job_and_shows_pictures(r: Client, own: Client) -> None:
    sent = await Queue(r, KEYS).submit(job(payload={"extra_data": {"api_key_comfy_org": "open-sesame"}}))
    claims, previews = Claims(own, KEYS, f"{M}-worker-0", lease_s=30), Previews(own, KEYS)
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    assert await claims.secrets(claim) == Secrets({"api_key_comfy_org": "open-sesame"})
    async with r.pubsub() as heard:
        await heard.subscribe(KEYS.preview_channel(sent.job_id))
        await heard.get_message(timeout=5)
        assert await previews.watchers(sent.job_id) == 1
        await previews.publish(sent.job_id, Preview(content_type="image/png", data=b"x"))
        message = await heard.get_message(ignore_subscribe_messages=True, timeout=5)
        assert message is not None and message["data"].startswith('{"content_type":"image/png"')
    await claims.aclose()


async def denied(r: Client) -> list[dict[str, str]]:
    return [dict(zip(e[::2], e[1::2], strict=True)) if isinstance(e, list) else e for e in await r.acl_log()]


@pytest.mark.parametrize(
    "words",
    [
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "default", "on"),
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("MODULE", "LIST"),
        ("SHUTDOWN",),
        ("SCRIPT", "FLUSH"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("MONITOR",),
        ("REPLICAOF", "NO", "ONE"),
        ("GET", "machines"),
        ("GET", "other:jobs"),
        ("SET", KEYS.generation("f"), "9"),
        ("GET", KEYS.spec("f", 1)),
        ("SET", KEYS.leader("f"), "me"),
        ("XADD", KEYS.commands("m2"), "*", "command", "{}"),
        ("GET", KEYS.config("m2")),
        ("PUBLISH", "other", "x"),
        ("EVAL", "return redis.call('FLUSHALL')", "0"),
        ("EVAL", "return redis.call('SET', 'other:x', '1')", "0"),
        ("EVAL", f"return redis.call('SET', '{KEYS.generation('f')}', '1')", "0"),
    ],
)
async def test_it_may_do_nothing_else(own: Client, words: tuple[str, ...]) -> None:
    with pytest.raises(rexc.ResponseError, match=r"(?i)perm|acl|can't"):
        await own.execute_command(*words)


async def test_granted_again_it_is_the_same_and_withdrawn_it_is_gone(r: Client, own: Client) -> None:
    await own.ping()
    before = await r.acl_getuser(user_of("f", M))
    assert await grant(r, KEYS, "f", M, PASSWORD)
    assert await r.acl_getuser(user_of("f", M)) == before
    await own.ping()
    await withdraw(r, "f", M)
    with pytest.raises(rexc.ConnectionError):  # refused logins are connection errors to redis-py
        await own.ping()


async def test_a_user_of_an_older_emp_gets_what_is_needed_now(r: Client, own: Client) -> None:
    await own.ping()
    name = user_of("f", M)
    await r.execute_command("ACL", "SETUSER", name, "resetkeys", f"~{KEYS.jobs}", "resetchannels")
    with pytest.raises(rexc.ResponseError):
        await own.get(KEYS.secrets("j"))
    assert await renew(r, KEYS, "f", M, PASSWORD)
    assert await own.get(KEYS.secrets("j")) is None
    assert not await renew(r, KEYS, "f", "nobody", PASSWORD)
    assert await r.acl_getuser(user_of("f", "nobody")) is None


async def test_who_may_not_make_users_says_so(r: Client, server: Server) -> None:
    await r.acl_setuser("poor", enabled=True, passwords=["+poor"], keys=["*"], commands=["+@all", "-@admin"])
    poor = client(with_login(server.url, "poor", "poor"))
    try:
        assert not await grant(poor, Keys("x:"), "f", "m", PASSWORD)
        await withdraw(poor, "f", "m")
    finally:
        await poor.aclose()
        await r.acl_deluser("poor")


def test_no_two_machines_share_a_user() -> None:
    assert user_of("a-b", "c") != user_of("a", "b-c")
