"""What the reconciler does about jobs whose worker was lost for good, with real services and workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec import structs

from emp_orch import manifest
from emp_orch.connectors.simulation import Request, workflow_of
from emp_orch.control.jobs.lost_jobs import LostJobs
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.fleet.leader import Leadership, Mandate, NotLeader
from emp_orch.store.queue.claim import Claimed, Claims, RunRef
from emp_orch.store.queue.submit import Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client, client
from support.redis.server import Server, job, running_server, until
from support.worker.lost_jobs import FLEET, LONG_MS, leading
from support.worker.processes import KEYS, Bench, at, bench, known_by_its_service

PAYLOAD: dict[str, Any] = {"prompt": "x", "steps": 100}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await made.aclose()


@pytest.fixture
def stage(tmp_path: Path, server: Server, r: Client) -> Iterator[Bench]:
    with bench(tmp_path, server) as made:
        yield made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "emp.yaml"
    path.write_text(FLEET)
    return manifest.load(path, {})


async def swept_until(r: Client, fleet: Fleet, artifacts: Artifacts, job_id: str, *statuses: JobStatus) -> Job:
    """The job once it has one of these statuses, while lost jobs are looked after as the reconciler does."""
    queue = Queue(r, KEYS)
    async with asyncio.TaskGroup() as group:
        lost = LostJobs(r, KEYS, artifacts, group)

        async def look() -> Job | None:
            await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
            found = await queue.get(job_id)
            return found if found.status in statuses else None

        found: Job = await until(look)
    return found


async def killed_in_the_middle(
    stage: Bench,
    r: Client,
    port: int,
    *,
    lease_s: int = 1,
    connector: str = "simulation",
    payload: dict[str, Any] = PAYLOAD,
) -> str:
    """A job whose worker is killed once its service knows the run."""
    worker = stage.worker(f"simulation={connector}@http://127.0.0.1:{port}", options=("--lease-ttl", str(lease_s)))
    stage.ready()
    sent = await Queue(r, KEYS).submit(job(payload=payload))

    await known_by_its_service(r, sent.job_id, port)
    worker.kill()
    return sent.job_id


async def test_what_the_service_finished_is_kept(stage: Bench, r: Client, fleet: Fleet) -> None:
    _, port = stage.simulation(step_ms=20)
    job_id = await killed_in_the_middle(stage, r, port)
    fleet = at(fleet, port)
    artifacts = Artifacts((stage.folder / "kept").as_uri())
    found = await swept_until(r, fleet, artifacts, job_id, JobStatus.COMPLETED, JobStatus.PENDING)
    assert found.status is JobStatus.COMPLETED and found.attempts == 1 and found.result is not None
    (output,) = found.result.outputs
    assert sum([len(chunk) async for chunk in artifacts.read(job_id, output)]) == output.size
    assert "its service had finished the run" in found.history[-1].reason


async def test_a_finished_run_is_kept_when_its_payload_is_kept_apart(stage: Bench, r: Client, fleet: Fleet) -> None:
    """A workflow of a few KiB does not stand in the job's document; without it nothing can be made of the answer."""
    _, port = stage.simulation(step_ms=20)
    workflow = workflow_of(Request(prompt="x" * 5_000, steps=100))
    job_id = await killed_in_the_middle(stage, r, port, connector="comfyui", payload={"workflow": workflow})
    fleet = at(fleet, port, "comfyui")
    assert await r.exists(KEYS.payload(job_id))
    artifacts = Artifacts((stage.folder / "kept").as_uri())
    found = await swept_until(r, fleet, artifacts, job_id, JobStatus.COMPLETED, JobStatus.PENDING, JobStatus.FAILED)
    assert found.status is JobStatus.COMPLETED, found.error


async def test_what_the_service_does_not_know_runs_again(stage: Bench, r: Client, fleet: Fleet) -> None:
    service, port = stage.simulation(step_ms=20)
    job_id = await killed_in_the_middle(stage, r, port, lease_s=8)
    fleet = at(fleet, port)
    service.kill()
    stage.simulation(step_ms=1, port=port)
    artifacts = Artifacts((stage.folder / "kept").as_uri())
    found = await swept_until(r, fleet, artifacts, job_id, JobStatus.COMPLETED, JobStatus.PENDING)
    assert found.status is JobStatus.PENDING
    assert "stopped renewing" in found.history[-1].reason


async def test_a_service_that_fails_the_run_has_the_word(stage: Bench, r: Client, fleet: Fleet) -> None:
    """Also when nobody answers: the job runs again."""
    service, port = stage.simulation(step_ms=20)
    job_id = await killed_in_the_middle(stage, r, port)
    fleet = at(fleet, port)
    service.kill()
    artifacts = Artifacts((stage.folder / "kept").as_uri())
    found = await swept_until(r, fleet, artifacts, job_id, JobStatus.PENDING, JobStatus.FAILED)
    assert found.status is JobStatus.PENDING and "does not answer" in found.history[-1].reason


async def test_workers_get_a_lease_of_time_after_redis_was_away(r: Client, fleet: Fleet, tmp_path: Path) -> None:
    queue, artifacts = Queue(r, KEYS), Artifacts(tmp_path.as_uri())
    holder = Claims(r, KEYS, "m-worker-0", lease_s=0.01)
    await queue.submit(job(id="held"))
    claim = await holder.claim_or_wait({"services": ["simulation"]})

    async def over() -> bool:
        return bool(await Reaper(r, KEYS).expired())

    await until(over)
    async with asyncio.TaskGroup() as group:
        lost = LostJobs(r, KEYS, artifacts, group)
        await lost.sweep(fleet, still=leading, connected_ms=10)
        assert (await queue.get("held")).status is JobStatus.ASSIGNED, "its lease is over for less than a lease"
        await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
    assert (await queue.get("held")).status is JobStatus.PENDING
    assert claim is not None
    await holder.aclose()


async def test_a_machine_elsewhere_is_not_asked(r: Client, fleet: Fleet, tmp_path: Path) -> None:
    """127.0.0.1 is another host's there: the job just runs again."""
    queue, artifacts = Queue(r, KEYS), Artifacts(tmp_path.as_uri())
    holder = Claims(r, KEYS, "elsewhere-worker-0", lease_s=0.01)
    await queue.submit(job(id="held"))
    claim = await holder.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    await holder.began(claim, RunRef(connector="no-such", url="http://127.0.0.1:1", ref="x"))
    found = await swept_until(r, fleet, artifacts, "held", JobStatus.PENDING)
    assert found.attempts == 1
    await holder.aclose()


@pytest.mark.parametrize("changed", [{"url": "OTHER"}, {"connector": "comfyui"}, {"ref": "../secret"}])
async def test_nobody_is_asked_but_by_emp_yaml(
    r: Client, tmp_path: Path, changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can write in Redis names another place, another connector, or a way within the service."""
    path = tmp_path / "emp.yaml"
    path.write_text(OUTSIDE.replace("MORE", "env: {SERVICE_TOKEN: {env: OURS}}"))
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.rel_url.raw_path)
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(app) as service, TestServer(app) as other, asyncio.TaskGroup() as group:
        fleet = at(manifest.load(path, {}), service.port or 0, "http")
        urls = {"url": str(other.make_url("")).rstrip("/")} if "url" in changed else changed
        ours = RunRef(connector="http", url=f"http://127.0.0.1:{service.port}", ref="one")
        holder = Claims(r, KEYS, "m-worker-0", lease_s=0.01)
        await Queue(r, KEYS).submit(job(id="held"))
        claim = await holder.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed)
        await holder.began(claim, structs.replace(ours, **urls))
        held = {"env:OURS": SERVICE_TOKEN}
        lost = LostJobs(r, KEYS, Artifacts(tmp_path.as_uri()), group, lambda: held)

        async def ended() -> bool:
            await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
            return (await Queue(r, KEYS).get("held")).status is not JobStatus.ASSIGNED

        await until(ended)
        await holder.aclose()
    assert asked == (["/runs/..%2Fsecret"] if "ref" in changed else [])


async def _led_before(r: Client) -> Callable[[], None]:
    """The check of a leader that another has followed."""
    former = Leadership(r, KEYS, "lost", "one", ttl_ms=60_000)
    mandate = await former.acquire()
    assert isinstance(mandate, Mandate)
    await former.release()
    assert isinstance(await Leadership(r, KEYS, "lost", "two", ttl_ms=60_000).acquire(), Mandate)
    return partial(former.assure, mandate)


async def test_a_former_leader_leaves_lost_jobs_alone(r: Client, fleet: Fleet, tmp_path: Path) -> None:
    queue = Queue(r, KEYS)
    holder = Claims(r, KEYS, "elsewhere-worker-0", lease_s=0.01)
    await queue.submit(job(id="held"))
    assert await holder.claim_or_wait({"services": ["simulation"]}) is not None
    still = await _led_before(r)

    async def refused() -> bool:
        async with asyncio.TaskGroup() as group:
            try:
                await LostJobs(r, KEYS, Artifacts(tmp_path.as_uri()), group).sweep(
                    fleet, still=still, connected_ms=LONG_MS
                )
            except NotLeader:
                return True
        return False  # its lease is not over yet

    await until(refused)
    assert (await queue.get("held")).status is JobStatus.ASSIGNED
    await holder.aclose()


async def test_an_answer_that_comes_when_another_leads_is_not_acted_on(stage: Bench, r: Client, fleet: Fleet) -> None:
    _, port = stage.simulation(step_ms=20)
    job_id = await killed_in_the_middle(stage, r, port)
    fleet = at(fleet, port)
    still = await _led_before(r)
    asked: list[str] = []

    def refused() -> None:
        asked.append(job_id)
        still()

    async def over() -> bool:
        return bool(await Reaper(r, KEYS).expired())

    await until(over)
    before = await Queue(r, KEYS).get(job_id)
    async with asyncio.TaskGroup() as group:
        lost = LostJobs(r, KEYS, Artifacts((stage.folder / "kept").as_uri()), group)
        await lost.sweep(fleet, still=refused, connected_ms=LONG_MS)
    assert asked == [job_id]
    assert await Queue(r, KEYS).get(job_id) == before


OUTSIDE = """
version: 1
name: lost
services:
  simulation:
    scale: per_machine
    command: [none]
    port: 8299
    connector: http
    connector_options:
      {path: /run, mode: poll, id_field: id, status_path: '/runs/{id}', status_field: status, done: [ok],
       headers: {Authorization: {env: SERVICE_TOKEN}}}
machines: {m: {num_gpus: 1, services: [simulation], MORE}}
jobs: {lease: 1s}
"""
SERVICE_TOKEN = "token-of-the-service"


@pytest.mark.parametrize("more", ["env: {SERVICE_TOKEN: {env: OURS}}", "inherit: [SERVICE_TOKEN]"])
async def test_a_service_is_asked_with_the_headers_that_its_worker_had(
    server: Server, r: Client, tmp_path: Path, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reconciler has none of the worker's environment: the values are those that the apply resolved."""
    monkeypatch.delenv("SERVICE_TOKEN", raising=False)
    path = tmp_path / "emp.yaml"
    path.write_text(OUTSIDE.replace("MORE", more))
    fleet = manifest.load(path, {})
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers.get("Authorization", ""))
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/runs/{id}", answer)
    held = {"env:OURS": SERVICE_TOKEN} if "OURS" in more else {"env:SERVICE_TOKEN": SERVICE_TOKEN}
    async with TestServer(app) as service, asyncio.TaskGroup() as group:
        fleet = at(fleet, service.port or 0, "http")
        holder = Claims(r, KEYS, "m-worker-0", lease_s=0.01)
        await Queue(r, KEYS).submit(job(id="held"))
        claim = await holder.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed)
        await holder.began(claim, RunRef(connector="http", url=str(service.make_url("")).rstrip("/"), ref="one"))
        lost = LostJobs(r, KEYS, Artifacts(tmp_path.as_uri()), group, lambda: held)

        async def look() -> bool:
            await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
            return (await Queue(r, KEYS).get("held")).status is JobStatus.COMPLETED

        await until(look)
        await holder.aclose()
    assert set(asked) == {SERVICE_TOKEN}
