"""A box without a login at Redis works through the API: agent and worker notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from redis import exceptions as rexc

from emp_orch.api.gate.socket import OF_AGENT, OF_WORKER
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.jobs.document.model import Progress, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.matching.offers import Offers, digest_of, encoded
from emp_orch.machine.agent.link import Link
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.acl.strangers import digests
from emp_orch.store.fleet.commands import Ack, Command, CommandVerb, acknowledge, commands_after, latest_command, send
from emp_orch.store.fleet.events import GATE_REFUSED, Events
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.queue.claim import Claimed, Claims, Lease, Waiting
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.redis.client import time_ms
from support.http.gate import MINE, OTHER, GateLab, gate_lab
from support.http.stack import FLEET, Process, Stack, eventually, free_port
from support.redis.endpoint import Endpoint
from support.worker.processes import EMP

STEPS = {"service": "simulation", "payload": {"steps": 3}}
KEY = "comfyui-2f8a11d0c4"
FLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
SECRET = {"service": "comfyui", "payload": {"prompt": FLOW, "extra_data": {"api_key_comfy_org": KEY}}}


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


async def test_a_job_is_claimed_run_and_ended_through_the_gate(lab: GateLab) -> None:
    r = await lab.box(MINE)
    assert await r.ping() and await time_ms(r)
    claims = Claims(r, lab.keys, f"{MINE}-worker-0", lease_s=30)
    able = {"services": ["simulation", "comfyui"]}
    assert isinstance(await claims.claim_or_wait(able), Waiting)
    sent = await lab.queue.submit(parse_submission(SECRET))
    assert await claims.wait(10) is not None
    claim = await claims.claim_or_wait(able)
    assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
    secrets = await claims.secrets(claim)
    assert secrets is not None and secrets.values == {"api_key_comfy_org": KEY}
    assert await claims.progress(claim, Progress(fraction=0.5)) is Lease.OK
    assert await claims.renew(claim) is Lease.OK
    assert await claims.completed(claim, Result(detail={"n": 1})) is JobStatus.COMPLETED
    job = await lab.queue.get(sent.job_id)
    assert (job.status, job.worker_id) == (JobStatus.COMPLETED, f"{MINE}-worker-0")
    await claims.leave()
    await claims.aclose()


async def test_who_has_just_joined_is_let_through_at_once(lab: GateLab) -> None:
    assert await (await lab.box(MINE)).ping()  # from now on the API knows for a moment who is a member
    for number in range(3):
        await lab.join(f"renders-new{number}")
        assert await (await lab.box(f"renders-new{number}")).ping()


async def refused(lab: GateLab) -> list[tuple[str, str]]:
    events = await lab.producer.events.recent(10_000)
    return [(e.data["command"], e.data["error"]) for e in events if e.type == GATE_REFUSED]


async def test_a_worker_process_works_and_nothing_is_refused(lab: GateLab, tmp_path: Path) -> None:
    url = await lab.relay(MINE)
    port = free_port()
    env = {**os.environ, "HUB_REDIS_URL": url, "EMP_ARTIFACTS_URL": f"file://{tmp_path}/out"}
    words = ("worker", "--machine", MINE, "--gpu", "0", "--service", f"simulation=simulation@http://127.0.0.1:{port}")
    async with (
        ended(
            Process(
                [*EMP, "simulate", "--port", str(port), "--dir", "sim", "--step-ms", "5"],
                tmp_path / "sim.log",
                tmp_path,
            )
        ),
        ended(
            Process([*EMP, *words, "--heartbeat", "0.2", "--probe", "0.1"], tmp_path / "worker.log", tmp_path, env)
        ) as worker,
    ):
        ids = [(await lab.queue.submit(parse_submission(STEPS))).job_id for _ in range(12)]
        stopped = (await lab.queue.submit(parse_submission({**STEPS, "payload": {"steps": 2_000}}))).job_id

        async def all_done() -> bool:
            return all([(await lab.queue.get(i)).status is JobStatus.COMPLETED for i in ids])

        async def runs() -> bool:
            return (await lab.queue.get(stopped)).status is JobStatus.IN_PROGRESS

        async def cancelled() -> bool:
            return (await lab.queue.get(stopped)).status is JobStatus.CANCELLED

        await eventually(all_done, f"12 jobs: {worker.text[-2_000:]}")
        await eventually(runs, "the long one")
        await lab.queue.cancel(stopped)
        await eventually(cancelled, "its cancellation")
        assert await lab.r.hexists(lab.keys.workers, f"{MINE}-worker-0")
    assert not await lab.r.hexists(lab.keys.workers, f"{MINE}-worker-0")  # it left in good order
    assert await refused(lab) == []


async def test_an_agents_line_and_orders_go_through_it(lab: GateLab) -> None:
    r = await lab.box(MINE)
    generation = await read_with_members(lab.r, lab.keys, FLEET)
    assert generation is not None
    now = await time_ms(lab.r)
    report = MachineReport(
        machine_id=MachineId(MINE), status=MachineStatus.READY, boot_id="b", generation=1, config_hash="x", num_gpus=2,
        programs={}, host="h", agent_version="1", started_ms=now, gpus=(), health_port=1,
    )  # fmt: skip
    link = Link(r, lab.keys, MINE, lambda: report)
    link.event("machine_startup", phase="ready")
    await link.flush()
    assert await lab.r.hget(lab.keys.machines, MINE)
    command = Command(seq="1", verb=CommandVerb.RESTART_PROGRAM, program="simulation")
    seal = SigningKey(lab.stack.layout, FLEET).handed(MINE).seal
    mandate = await lab.producer.mandate()
    await send(lab.r, lab.keys, mandate, MINE, command, seal=seal, count=1)
    assert await latest_command(r, lab.keys, MINE) != "0-0"
    assert len(await commands_after(r, lab.keys, MINE, "0-0", block_ms=100)) == 1
    await acknowledge(r, lab.keys, MINE, Ack(seq="1", ok=True))
    assert await lab.r.xlen(lab.keys.acks(MINE)) == 1
    await Events(r, lab.keys).append("command_done", machine_id=MINE, operation="1", ok=True, error="")
    await link.withdraw()
    assert not await lab.r.hexists(lab.keys.machines, MINE)
    offers = encoded(Offers(nodes={"A": ()}, outputs=frozenset()))
    await OffersStore(r, lab.keys).keep(digest_of(offers), offers)
    await OffersStore(r, lab.keys).keep(digest_of(offers), offers)
    assert await OffersStore(lab.r, lab.keys).of([digest_of(offers)])
    assert {m.id for m in generation.fleet.members} == {MINE, OTHER} and await refused(lab) == []


async def test_a_box_is_told_of_no_lane_that_it_cannot_serve(lab: GateLab) -> None:
    await lab.queue.submit(parse_submission({"service": "elsewhere", "requirements": {"customer": "acme"}}))
    sent = await lab.queue.submit(parse_submission({"service": "simulation"}))
    r = await lab.box(MINE)
    new_lanes = digest_for("lanes/new_lanes", lab)
    answer = await r.execute_command("EVALSHA", new_lanes, 0, "0" * 16, 500)
    assert "acme" not in str(answer) and "simulation" in str(answer)
    claims = Claims(r, lab.keys, f"{MINE}-worker-0", lease_s=30)
    claim = await claims.claim_or_wait({"services": ["simulation", "elsewhere"]})
    assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
    assert isinstance(await claims.claim_or_wait({"services": ["simulation", "elsewhere"]}), Waiting)
    await claims.aclose()


async def test_who_is_forgotten_is_without_a_way_at_once(lab: GateLab) -> None:
    r = await lab.box(MINE)
    assert await r.ping()
    member = await lab.members.get(MINE)
    assert member is not None and await lab.members.remove(member)

    async def refused_now() -> bool:
        try:
            await r.ping()
        except rexc.AuthenticationError:
            return True
        except rexc.ConnectionError:
            return False
        return False

    await eventually(refused_now, "the token is nobody's")
    # Born again it is another: its former token opens nothing.
    await lab.join(MINE, born_ms=2_000)
    assert await refused_now()


async def test_redis_that_restarts_is_away_and_back(lab: GateLab) -> None:
    r = await lab.box(MINE)
    assert await r.ping()
    lab.stack.stop_redis()
    with pytest.raises((rexc.ConnectionError, OSError)):
        await r.ping()
    lab.stack.start_redis()

    async def answers() -> bool:
        try:
            return bool(await r.ping())
        except (rexc.RedisError, OSError):
            return False

    await eventually(answers, "Redis through the gate")


async def test_a_box_that_is_told_to_wait_asks_the_api_no_more_until_then(lab: GateLab) -> None:
    """As many connections as a box may have are there; its relay asks through an address that counts."""
    async with (
        Endpoint(urlsplit(lab.stack.api).port or 0, counts=b"GET /api/gate ").open() as there,
        aiohttp.ClientSession() as session,
    ):
        url = await lab.relay(MINE, api=f"http://127.0.0.1:{there.port}")
        login = {"Authorization": f"Bearer {lab.token(MINE)}"}
        async with AsyncExitStack() as taken:
            for _ in range(OF_AGENT + OF_WORKER * 2):
                await taken.enter_async_context(session.ws_connect(f"{lab.stack.api}{GATE_PATH}", headers=login))
            with pytest.raises(aiohttp.WSServerHandshakeError) as full:
                await session.ws_connect(f"{lab.stack.api}{GATE_PATH}", headers=login)
            assert full.value.status == 429 and full.value.headers is not None and full.value.headers["Retry-After"]
            for _ in range(30):
                with pytest.raises(rexc.ConnectionError):
                    await lab.client_of(url).ping()
            assert there.counted == 1

        async def answers() -> bool:
            try:
                return bool(await lab.client_of(url).ping())
            except rexc.ConnectionError:
                return False

        await eventually(answers, "a connection that was free again")
        assert there.counted < 10


def digest_for(name: str, lab: GateLab) -> str:
    return next(d.decode() for d, n in digests(lab.keys).items() if n == name)


@contextlib.asynccontextmanager
async def ended(process: Process) -> AsyncIterator[Process]:
    try:
        yield process
    finally:
        await asyncio.to_thread(process.stop)  # its relay runs here
