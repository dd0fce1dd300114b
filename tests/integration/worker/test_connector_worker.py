"""One claimed job on its connector, with a real queue, service and artifact store; and workers as others see them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from emp_orch.connectors.base import Run
from emp_orch.connectors.simulation import Simulation
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Job, Result
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.claim import Adopted, Claimed, Claims, RunRef
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import Done, Lost, NotDone
from support.redis.server import Server, eventually, job, until
from support.worker.config import CONFIG
from support.worker.connector import job_of, serving
from support.worker.processes import KEYS, Bench, known_by_its_service


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


@pytest.fixture
async def claims(r: Client) -> AsyncIterator[Claims]:
    made = Claims(r, KEYS, "m-worker-0", lease_s=30)
    yield made
    await made.aclose()


async def claimed(queue: Queue, claims: Claims, *, steps: int = 3) -> Claimed:
    await queue.submit(job(payload={"prompt": "a cat", "steps": steps}))
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    return claim


class Bound:
    """A simulation connector, and what JobRun is given of it."""

    def __init__(self, port: int, folder: Path) -> None:
        self.binding = ServiceBinding(service="simulation", connector="simulation", url=f"http://127.0.0.1:{port}")
        self.connector = Simulation(self.binding.url, {})
        self._artifacts = Artifacts(local_url(folder))

    def given(self, claim: Claimed, earlier: RunRef | None = None) -> Assignment:
        return Assignment(
            claim=claim,
            connector=self.connector,
            binding=self.binding,
            artifacts=self._artifacts,
            earlier=earlier,
        )


async def prompts(port: int) -> list[str]:
    """The runs that the service has ended."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http, http.get("/history") as answer:
        return list(await answer.json())


async def adopted(r: Client, claims: Claims, claim: Claimed, port: int) -> Adopted:
    """The claim as the worker's next life takes it over, once its service has the run."""
    await known_by_its_service(r, claim.job.id, port)
    found = await claims.adopt(claim.job.id)
    assert found is not None
    return found


async def test_a_run_that_was_begun_is_followed_and_not_begun_again(
    stage: Bench, r: Client, queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    _, port = stage.simulation(step_ms=20)
    bound, stopping = Bound(port, tmp_path / "out"), asyncio.Event()
    claim = await claimed(queue, claims, steps=40)
    first = asyncio.create_task(JobRun(claims, bound.given(claim), CONFIG, stopping).run())
    again = await adopted(r, claims, claim, port)
    first.cancel()  # as a kill does: nobody tells the service
    await asyncio.wait([first])
    assert again.run is not None and again.run.url == bound.binding.url
    outcome = await JobRun(claims, bound.given(again.claim, again.run), CONFIG, stopping).run()
    assert isinstance(outcome, Done)
    (output,) = outcome.result.outputs
    assert (tmp_path / "out" / claim.job.id / output.path).stat().st_size == output.size
    assert await prompts(port) == [again.run.ref]
    assert await claims.completed(again.claim, outcome.result) is JobStatus.COMPLETED
    await bound.connector.close()


@pytest.mark.parametrize(("connector", "there"), [("simulation", True), ("simulation", False), ("comfyui", True)])
async def test_what_the_service_does_not_know_is_run_again(
    connector: str, there: bool, stage: Bench, queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    _, port = stage.simulation()
    bound = Bound(port, tmp_path / "out")
    url = bound.binding.url if there else "http://127.0.0.1:1"
    given = bound.given(await claimed(queue, claims), RunRef(connector=connector, url=url, ref="forgotten"))
    outcome = await JobRun(claims, given, CONFIG, asyncio.Event()).run()
    assert isinstance(outcome, Done) and outcome.result.outputs and len(await prompts(port)) == 1
    await bound.connector.close()


async def test_a_run_goes_on_while_redis_is_away(
    stage: Bench, server: Server, queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    _, port = stage.simulation()
    bound = Bound(port, tmp_path / "out")
    claim = await claimed(queue, claims)
    server.stop()
    outcome = await JobRun(claims, bound.given(claim), CONFIG, asyncio.Event()).run()
    assert isinstance(outcome, Done) and outcome.result.outputs
    await bound.connector.close()


async def test_a_lost_lease_is_noticed_when_the_run_is_put_on_record(
    stage: Bench, queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    _, port = stage.simulation(step_ms=50)
    bound = Bound(port, tmp_path / "out")
    claim = await claimed(queue, claims, steps=1000)
    assert await claims.adopt(claim.job.id) is not None
    assert isinstance(await JobRun(claims, bound.given(claim), CONFIG, asyncio.Event()).run(), Lost)
    await bound.connector.close()


async def test_a_store_that_cannot_be_written_is_the_jobs_error(
    stage: Bench, queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    _, port = stage.simulation()
    (tmp_path / "file").write_text("")
    bound = Bound(port, tmp_path / "file" / "out")
    outcome = await JobRun(claims, bound.given(await claimed(queue, claims)), CONFIG, asyncio.Event()).run()
    assert isinstance(outcome, NotDone) and outcome.error.retryable and "was not saved" in outcome.error.message
    await bound.connector.close()


def test_a_login_is_not_put_on_record() -> None:
    binding = ServiceBinding(service="s", connector="http", url="http://user:s3cret@127.0.0.1:1/x")
    claim = Claimed(job=job_of({}), token="t")
    made: Any = Simulation("http://127.0.0.1:1", {})
    given = Assignment(claim=claim, connector=made, binding=binding, artifacts=Artifacts("memory://x"))
    named = given.named("7")
    assert "s3cret" not in repr(named) and named == given.named("7")


# as others see it: what went wrong before (PRIOR-ART 3, 10, 14)


async def ended(queue: Queue, job_id: str) -> Job:
    async def look() -> Job | None:
        found = await queue.get(job_id)
        return found if found.status in ENDED else None

    found: Job = await until(look)
    return found


async def test_success_false_is_never_recorded_as_completed(stage: Bench, queue: Queue) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"success": False, "error": "model not found"})

    app = web.Application()
    app.router.add_post("/run", handler)
    async with serving(app) as url:
        stage.worker(f"rest=http@{url}", options=("--connector-options", 'rest={"path":"/run"}'))
        found = await ended(queue, (await queue.submit(job("rest"))).job_id)
    assert found.status is JobStatus.FAILED and found.result is None
    assert found.error is not None and found.error.message == "model not found"


async def test_one_workers_stop_is_its_own_and_its_job_goes_on_elsewhere(stage: Bench, queue: Queue, r: Client) -> None:
    _, port = stage.simulation(step_ms=20)
    binding, quick = f"simulation=simulation@http://127.0.0.1:{port}", ("--drain-timeout", "0")
    first = stage.worker(binding, gpu=0, options=quick)
    stage.ready(0)
    sent = await queue.submit(job(payload={"steps": 300}))
    eventually(lambda: (report := stage.report(0)) is not None and report.status == "busy")
    stage.worker(binding, gpu=1, options=quick)
    stage.ready(1)
    assert first.terminate() == 0
    assert stage.report(0) is None and stage.report(1) is not None
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.worker_id == "m-worker-1" and found.attempts == 1
    types = {e.type for e in await Events(r, KEYS).recent(200)}
    assert not {t for t in types if t.startswith("machine")}, "a worker says nothing of its machine"


async def test_waiting_working_and_broken_connectors_read_differently(stage: Bench, queue: Queue) -> None:
    hold, asked = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await hold.wait()
        return web.Response()

    async def run(_: web.Request) -> web.Response:
        await hold.wait()
        return web.json_response({})

    app = web.Application()
    app.router.add_get("/slow", slow)
    app.router.add_post("/run", run)

    def status(service: str) -> ConnectorStatus | None:
        report = stage.report()
        return None if report is None else report.connector_statuses[service].status

    async def reads(service: str, wanted: ConnectorStatus) -> None:
        async def look() -> bool:
            return status(service) is wanted

        await until(look)

    async with serving(app) as url:
        stage.worker(
            *(f"works=http@{url}", f"waits=http@{url}", "away=simulation@http://127.0.0.1:1", f"wrong=http@{url}"),
            options=(
                *("--connector-options", 'works={"path":"/run"}'),
                *("--connector-options", 'waits={"path":"/run","health_path":"/slow"}'),
            ),
        )
        await asked.wait()
        await reads("waits", ConnectorStatus.STARTING)
        await reads("away", ConnectorStatus.ERROR)
        await reads("wrong", ConnectorStatus.ERROR)
        await reads("works", ConnectorStatus.IDLE)
        hold.set()
        await reads("waits", ConnectorStatus.IDLE)
        hold.clear()
        sent = await queue.submit(job("works"))
        await reads("works", ConnectorStatus.ACTIVE)
        hold.set()
        assert (await ended(queue, sent.job_id)).status is JobStatus.COMPLETED
        await reads("works", ConnectorStatus.IDLE)


class Cancels:
    """A connector whose own task was cancelled, by itself: the worker was not."""

    kind = "cancels"

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        inner = asyncio.create_task(asyncio.sleep(60))
        inner.cancel()
        await inner
        return Result()

    async def cancel(self) -> None:
        return

    async def close(self) -> None:
        return


async def test_a_connector_that_cancels_itself_fails_its_job_and_not_the_worker(
    queue: Queue, claims: Claims, tmp_path: Path
) -> None:
    given = dataclasses.replace(Bound(1, tmp_path / "out").given(await claimed(queue, claims)), connector=Cancels())
    outcome = await JobRun(claims, given, CONFIG, asyncio.Event()).run()
    assert isinstance(outcome, NotDone) and "cancelled itself" in outcome.error.message
