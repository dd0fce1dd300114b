"""What a rented box's token opens at Redis: what a machine's login may do, and a member's may not; and floods."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import hiredis
import pytest
from redis import exceptions as rexc

from emp_orch.api.gate.requests import MAX_BYTES
from emp_orch.api.gate.socket import OF_AGENT, OF_WORKER
from emp_orch.control.doctor.facts.redis import read_redis
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.redis_users import user_of
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.acl.strangers import digests
from emp_orch.store.acl.users import grant
from emp_orch.store.fleet.events import GATE_REFUSED
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.redis.client import Client
from emp_orch.store.reports.reports import keys_of
from emp_orch.urls import with_login
from support.http.gate import MINE, NAMED, OTHER, GateLab, gate_lab
from support.http.run_files import API_TOKEN
from support.http.stack import FLEET, Stack, eventually

ABLE = {"services": ["simulation"]}
TOKEN = "0123456789abcdef"


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


async def plain(lab: GateLab) -> Client:
    """A client with the login that a machine of emp.yaml has: what every box had before."""
    assert await grant(lab.r, lab.keys, FLEET, MINE, "pw")
    return lab.client_of(with_login(lab.stack.settings.redis_url, user_of(FLEET, MINE), "pw"))


async def held_by_other(lab: GateLab) -> tuple[Claims, Claimed]:
    await lab.queue.submit(parse_submission({"service": "simulation", "payload": {"prompt": "a secret idea"}}))
    claims = Claims(lab.r, lab.keys, f"{OTHER}-worker-0", lease_s=30)
    claim = await claims.claim_or_wait(ABLE)
    assert isinstance(claim, Claimed)
    return claims, claim


def digest(lab: GateLab, name: str) -> str:
    return next(d.decode() for d, n in digests(lab.keys).items() if n == name)


async def test_what_a_machines_login_may_do_and_a_members_may_not(lab: GateLab) -> None:
    claims, claim = await held_by_other(lab)
    job, keys, worker = claim.job.id, lab.keys, f"{OTHER}-worker-0"
    put = [digest(lab, "reports/put"), 5, *keys_of(keys, "worker"), keys.events, worker, "forged", ""]
    event = json.dumps({"type": "job_completed", "job_id": job})
    attacks: list[tuple[Any, ...]] = [
        ("HGET", keys.jobs, job),
        ("HGET", keys.job(job), "token"),
        ("HGETALL", keys.jobs),
        ("GET", keys.secrets(job)),
        ("XRANGE", keys.progress(job), "-", "+"),
        ("EVALSHA", *put),
        ("EVALSHA", digest(lab, "claim/leave"), 0, worker),
        ("EVALSHA", digest(lab, "upkeep/trim"), 0, "failed", 0, 10_000),
        ("XADD", keys.events, "MAXLEN", "~", 10_000, "*", "type", "job_completed", "data", event),
        ("BLPOP", keys.wake(worker), 0.01),
        ("HKEYS", keys.workers),
        ("DEL", keys.lane("x")),
    ]
    today, box = await plain(lab), await lab.box(MINE)
    for words in attacks:
        await today.execute_command(*words)
    await lab.r.hdel(keys.workers, worker)
    for words in attacks:
        with pytest.raises(rexc.NoPermissionError):
            await box.execute_command(*words)
    # Nor what even a machine's login may not.
    for words in (
        *(("GET", keys.generation(FLEET)), ("HGETALL", keys.members(FLEET)), ("GET", keys.memory(FLEET))),
        *(("GET", keys.config(NAMED)), ("GET", keys.config(OTHER)), ("XRANGE", keys.commands(OTHER), "-", "+")),
        *(("KEYS", "*"), ("EVAL", "return 1", 0), ("SCRIPT", "LOAD", "return 1"), ("CONFIG", "GET", "*")),
        *(("ACL", "WHOAMI"), ("SUBSCRIBE", "x"), ("FLUSHALL",), ("CLIENT", "LIST")),
    ):
        with pytest.raises(rexc.NoPermissionError):
            await box.execute_command(*words)
    assert not await lab.r.hexists(keys.workers, worker)
    told = [e.data for e in await lab.producer.events.recent(10_000) if e.type == GATE_REFUSED]
    assert told[0]["machine_id"] == MINE and told[0]["command"] == "HGET"
    seen = (await read_redis(lab.stack.settings)).gate_refused  # as doctor sees it
    assert list(seen) == [MINE] and seen[MachineId(MINE)].last.startswith("HGET it is a key")
    headers = {"Authorization": f"Bearer {API_TOKEN}"}
    async with aiohttp.ClientSession() as http, http.get(f"{lab.stack.api}/metrics", headers=headers) as answer:
        metrics = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if line[0] != "#")
    assert float(metrics["emp_api_gate_refused_total"]) >= len(attacks) + 13
    assert float(metrics['emp_api_clients{kind="gate"}']) >= 1
    await claims.aclose()


async def test_another_s_run_is_not_ended_taken_over_or_looked_at(lab: GateLab) -> None:
    claims, claim = await held_by_other(lab)
    box, job = await lab.box(MINE), claim.job.id
    mine = Claims(box, lab.keys, f"{MINE}-worker-0", lease_s=30)
    guessed = Claimed(job=claim.job, token=TOKEN)
    assert await mine.completed(guessed, Result()) is None
    assert await mine.adopt(job) is None
    assert await box.execute_command("EVALSHA", digest(lab, "run/secrets_of"), 0, job, TOKEN) == "lost"
    lane = json.dumps({"service": "simulation"})
    end = (job, claim.token, "pending", "", "", "why", 0, 0, 0, lane, "")
    # Even with the token of another's run it is not given back: it is for who holds it.
    assert await box.execute_command("EVALSHA", digest(lab, "run/end"), 0, *end) == "lost"
    assert await box.execute_command("PUBSUB", "NUMSUB", lab.keys.preview_channel(job)) in (
        [lab.keys.preview_channel(job), 0],
        {lab.keys.preview_channel(job): 0},
    )
    assert await box.execute_command("PUBLISH", lab.keys.preview_channel(job), "x") == 0
    with pytest.raises(rexc.NoPermissionError):
        claim_as_other = (f"{OTHER}-worker-0", "0" * 16, TOKEN, 30_000, 20_000, 1, 0)
        await box.execute_command("EVALSHA", digest(lab, "claim/next"), 0, *claim_as_other)
    with pytest.raises(rexc.NoPermissionError):
        beyond = (f"{MINE}-worker-7", "0" * 16, TOKEN, 30_000, 20_000, 1, 0)
        await box.execute_command("EVALSHA", digest(lab, "claim/next"), 0, *beyond)
    assert (await lab.queue.get(job)).status is JobStatus.ASSIGNED
    await mine.aclose()
    await claims.aclose()


async def test_jobs_of_services_that_its_pool_does_not_have_are_out_of_reach(lab: GateLab) -> None:
    await lab.queue.submit(parse_submission({"service": "elsewhere", "payload": {"prompt": "a secret idea"}}))
    box = await lab.box(MINE)
    (lane,) = await lab.r.hkeys(lab.keys.lanes)
    register = (
        "EVALSHA",
        digest(lab, "lanes/register"),
        0,
        "0" * 16,
        "",
        await lab.r.get(lab.keys.lanes_version),
        lane,
    )
    with pytest.raises(rexc.NoPermissionError, match="does not have"):
        await box.execute_command(*register)
    # As the class of workers that do serve it, it claims nothing: the name is its pool's here.
    able = {"services": ["elsewhere"]}
    claims = Claims(lab.r, lab.keys, f"{NAMED}-worker-0", lease_s=30)
    claim = await claims.claim_or_wait(able)
    assert isinstance(claim, Claimed)
    await lab.queue.submit(parse_submission({"service": "elsewhere"}))
    next_ = ("EVALSHA", digest(lab, "claim/next"), 0)
    assert claims._class
    said = await box.execute_command(*next_, f"{MINE}-worker-0", claims._class, TOKEN, 30_000, 20_000, 1, 0)
    assert said[1] == "stale"
    await claims.aclose()


async def opened(lab: GateLab, http: aiohttp.ClientSession) -> aiohttp.ClientWebSocketResponse:
    return await http.ws_connect(
        f"{lab.stack.api}{GATE_PATH}", headers={"Authorization": f"Bearer {lab.token(MINE)}"}, max_msg_size=0
    )


def packed(*words: bytes) -> bytes:
    pack: Any = hiredis.pack_command
    made: bytes = pack(words)
    return made


async def is_well(lab: GateLab) -> None:
    """Another box works on, and the API answers."""
    r = lab.client_of(await lab.relay(OTHER))
    assert await r.ping()
    await is_well_again(lab)


async def is_well_again(lab: GateLab) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{lab.stack.api}/health") as answer:
        assert answer.status == 200


async def test_a_flood_of_refused_commands_ends_the_connection_and_shuts_the_box_out(lab: GateLab) -> None:
    async with aiohttp.ClientSession() as http:
        ws = await opened(lab, http)
        flood = packed(b"KEYS", b"*") * 100_000
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            for at in range(0, len(flood), 1 << 16):
                await ws.send_bytes(flood[at : at + (1 << 16)])
            while (await ws.receive(10)).type is aiohttp.WSMsgType.BINARY:
                pass
            raise ConnectionResetError
        with pytest.raises(aiohttp.WSServerHandshakeError) as e:
            await opened(lab, http)
        assert e.value.status == 429
    told = [e for e in await lab.producer.events.recent(10_000) if e.type == GATE_REFUSED]
    assert 1 <= len(told) <= 3
    await is_well(lab)


@pytest.mark.parametrize(
    "raw",
    [
        b"*2\r\n$4\r\nPING\r\n$%d\r\n" % (MAX_BYTES * 100),
        b"*999999999\r\n",
        b"*1\r\n" * 1_000,
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)),
    ],
)
async def test_what_is_no_command_is_answered_and_ends_it(lab: GateLab, raw: bytes) -> None:
    async with aiohttp.ClientSession() as http:
        ws = await opened(lab, http)
        await ws.send_bytes(raw)
        assert (await ws.receive_bytes()).startswith(b"-ERR Protocol error")
        assert (await ws.receive(10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await ws.close()
    await is_well(lab)


async def test_half_a_command_and_text_hold_nothing_up(lab: GateLab) -> None:
    async with aiohttp.ClientSession() as http:
        half, text, large = [await opened(lab, http) for _ in range(3)]
        await half.send_bytes(b"*1\r\n$4\r\nPI")
        await text.send_str("PING")
        assert (await text.receive(10)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        await is_well(lab)
        await half.send_bytes(b"NG\r\n")
        assert await half.receive_bytes() == b"+PONG\r\n"
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await large.send_bytes(b"x" * (6 * 1024**2))
            assert (await large.receive(10)).type is not aiohttp.WSMsgType.BINARY
            raise ConnectionResetError
        await is_well_again(lab)
        for ws in (half, text, large):
            await ws.close()


async def test_a_thousand_sockets_of_one_box_keep_nobody_out(lab: GateLab) -> None:
    most = OF_AGENT + OF_WORKER * 2
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        tried = await asyncio.gather(*(opened(lab, http) for _ in range(1_000)), return_exceptions=True)
        stand = [one for one in tried if isinstance(one, aiohttp.ClientWebSocketResponse)]
        assert 1 <= len(stand) <= most
        await is_well(lab)
        for ws in stand:
            await ws.close()

    async def free() -> bool:
        async with aiohttp.ClientSession() as http:
            try:
                await (await opened(lab, http)).close()
            except aiohttp.WSServerHandshakeError:
                return False
            return True

    await eventually(free, "its place is free again")


async def test_no_other_token_opens_the_gate(lab: GateLab) -> None:
    async with aiohttp.ClientSession() as http:
        for token in ("", "guess", lab.token("renders-none"), lab.token(MINE, born_ms=7), lab.token(MINE) + "x"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as e:
                await http.ws_connect(
                    f"{lab.stack.api}{GATE_PATH}", headers={"Authorization": f"Bearer {token}"} if token else {}
                )
            assert e.value.status in (401, 403)
