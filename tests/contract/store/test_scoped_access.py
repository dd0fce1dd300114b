"""A machine's own user at Redis: all that an agent and a worker do, and nothing beyond, on Redis and on Valkey."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from redis import exceptions as rexc

from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.jobs.document.preview import Preview
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import JobStatus
from emp_orch.redis_users import user_of
from emp_orch.store.acl.machine_scripts import are_loaded, load, own_texts
from emp_orch.store.acl.users import grant, grant_all, granted, renew, revise, withdraw
from emp_orch.store.artifacts.previews import Previews
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.reads import Wanted
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.refusals import NotLoaded
from emp_orch.store.reports.reports import machine_writer, read_worker
from emp_orch.urls import with_login
from support.fleet.fleets import SIMULATION, one
from support.machine.machine import KEYS, Box, M
from support.redis.server import Server, free_port, job, until

PASSWORD = "a/b:c@d"
USER = user_of("f", M, prefix=KEYS.prefix)


@pytest.fixture
async def url(r: Client, server: Server) -> AsyncIterator[str]:
    """The way to Redis of a machine whose user is made, and whose scripts are loaded."""
    await load(r, own_texts(KEYS))
    assert await grant(r, KEYS, "f", M, PASSWORD)
    yield with_login(server.url, USER, PASSWORD)
    await withdraw(r, KEYS, "f", M)


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
    found: Any = await r.acl_log()
    return [dict(zip(e[::2], e[1::2], strict=True)) if isinstance(e, list) else e for e in found]


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
        ("SELECT", "1"),
        ("EVAL", "return 1", "0"),
        ("EVAL_RO", "return 1", "0"),
        ("EVALSHA_RO", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("SCRIPT", "KILL"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() while true do end end)"),
        ("FUNCTION", "FLUSH"),
        ("FUNCTION", "KILL"),
        ("FCALL", "x", "0"),
        ("FCALL_RO", "x", "0"),
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
    ],
)
async def test_it_may_do_nothing_else(own: Client, words: tuple[str, ...]) -> None:
    with pytest.raises(rexc.ResponseError, match=r"(?i)perm|acl|can't"):
        await own.execute_command(*words)


@pytest.mark.parametrize(
    "words", ["'SELECT', '1'", "'FLUSHALL'", "'SET', 'other:x', '1'", f"'SET', '{KEYS.generation('f')}', '1'"]
)
async def test_nor_does_a_script_that_somebody_else_loaded(r: Client, own: Client, words: str) -> None:
    digest = await r.script_load(f"return redis.call({words})")
    with pytest.raises(rexc.ResponseError, match=r"(?i)perm|acl|can't"):
        await own.evalsha(digest, 0)


async def test_a_script_that_redis_lost_is_waited_for_and_its_login_sends_none(r: Client, own: Client) -> None:
    """A restart, SCRIPT FLUSH, another primary: all are gone at once, and the mark with them."""
    writer = machine_writer(own, KEYS, M)
    texts = own_texts(KEYS)
    assert await are_loaded(r, texts) and not await are_loaded(r, texts[1:])
    await r.script_flush()
    assert not await are_loaded(r, texts)
    with pytest.raises(NotLoaded):
        await writer.withdraw()
    await load(r, texts)
    await writer.withdraw()


async def test_what_a_fleet_lost_of_its_data_takes_no_script_away(r: Client, own: Client) -> None:
    await r.flushall()
    assert await are_loaded(r, own_texts(KEYS))


async def test_one_whose_scripts_nobody_knows_may_send_its_own_and_no_longer(r: Client, own: Client) -> None:
    """Of an older emp. What it logs in with stays what it is, however it was let in."""
    await r.script_flush()
    assert await revise(r, KEYS, "f", [M], sends=True)
    assert await own.eval("return 1", 0) == 1
    await machine_writer(own, KEYS, M).withdraw()
    assert await revise(r, KEYS, "f", [M], sends=False)
    await own.connection_pool.disconnect()
    with pytest.raises(rexc.NoPermissionError):
        await own.eval("return 1", 0)


async def test_granted_again_it_is_the_same_and_withdrawn_it_is_gone(r: Client, own: Client) -> None:
    await own.ping()
    before = await r.acl_getuser(USER)
    assert await grant(r, KEYS, "f", M, PASSWORD)
    assert await r.acl_getuser(USER) == before
    await own.ping()
    assert await grant_all(r, KEYS, "f", {M: "another"}), "of a leader with another key"
    await own.connection_pool.disconnect()
    await own.ping()
    await withdraw(r, KEYS, "f", M)
    with pytest.raises(rexc.ConnectionError):  # refused logins are connection errors to redis-py
        await own.ping()


async def test_a_thousand_are_made_at_once_and_found_again(r: Client) -> None:
    wanted = {f"m-{n}": f"p{n}" for n in range(1_000)}
    try:
        assert await grant_all(r, KEYS, "many", wanted)
        assert await granted(r, KEYS, "many") == wanted.keys()
        assert await granted(r, Keys("other:"), "many") == frozenset()
    finally:
        await withdraw(r, KEYS, "many", *wanted)
    assert await granted(r, KEYS, "many") == frozenset()


async def test_a_user_of_an_older_emp_gets_what_is_needed_now(r: Client, own: Client) -> None:
    await own.ping()
    name = USER
    await r.execute_command("ACL", "SETUSER", name, "resetkeys", f"~{KEYS.jobs}", "resetchannels")
    with pytest.raises(rexc.ResponseError):
        await own.get(KEYS.secrets("j"))
    assert await renew(r, KEYS, "f", M, PASSWORD)
    assert await own.get(KEYS.secrets("j")) is None
    assert not await renew(r, KEYS, "f", "nobody", PASSWORD)
    assert await r.acl_getuser(user_of("f", "nobody", prefix=KEYS.prefix)) is None


async def test_who_may_not_make_users_says_so(r: Client, server: Server) -> None:
    await r.acl_setuser("poor", enabled=True, passwords=["+poor"], keys=["*"], commands=["+@all", "-@admin"])
    poor = client(with_login(server.url, "poor", "poor"))
    try:
        assert not await grant(poor, Keys("x:"), "f", "m", PASSWORD)
        await withdraw(poor, Keys("x:"), "f", "m")
    finally:
        await poor.aclose()
        await r.acl_deluser("poor")


def test_no_two_machines_share_a_user() -> None:
    assert user_of("a-b", "c") != user_of("a", "b-c")


def test_nor_do_fleets_of_one_name_with_other_keys_or_another_database() -> None:
    places: list[dict[str, Any]] = [
        {},
        {"prefix": "x:"},
        {"prefix": "y:"},
        {"database": 1},
        {"prefix": "x:", "database": 1},
    ]
    names = [user_of("f", "m", **place) for place in places]
    assert len(set(names)) == len(names) and names[0] == "emp:f:m"
    assert not any(name.startswith("emp:f:") for name in names[1:])
