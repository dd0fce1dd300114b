"""What is done beside a run that begins: its job is in progress, and its folder in the artifact store is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from emp_orch.connectors.base import Recovers, Run
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import Done
from support.redis.server import job, until
from support.worker.config import CONFIG
from support.worker.processes import KEYS


class Naming:
    """A connector that gives its runs names when it `may_begin`, and ends them when it `may_end`."""

    kind = "test"

    def __init__(self) -> None:
        self.may_begin, self.may_end = asyncio.Event(), asyncio.Event()

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        await self.may_begin.wait()
        await run.began("p1")
        await self.may_end.wait()
        return Result()

    async def recover(self, run: Run, ref: str, *, wait: bool) -> Result | None:
        return None

    async def cancel(self) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def running(r: Client, connector: Naming, folder: Path) -> AsyncIterator[Claimed]:
    """A claimed job on that connector; at the end of the block it is done."""
    assert isinstance(connector, Recovers)
    claims = Claims(r, KEYS, "m-worker-0", lease_s=30)
    await Queue(r, KEYS).submit(job())
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    binding = ServiceBinding(service="simulation", connector="test", url="http://127.0.0.1:1")
    given = Assignment(claim=claim, connector=connector, binding=binding, artifacts=Artifacts(local_url(folder)))
    run = asyncio.create_task(JobRun(claims, given, CONFIG, asyncio.Event()).run())
    try:
        yield claim
        connector.may_begin.set()
        connector.may_end.set()
        assert await run == Done(result=Result())
    finally:
        run.cancel()
        await claims.aclose()


async def is_in_progress(r: Client, job_id: str) -> bool:
    return (await Queue(r, KEYS).get(job_id)).status is JobStatus.IN_PROGRESS


async def test_a_job_whose_service_lets_it_wait_is_in_progress(r: Client, tmp_path: Path) -> None:
    async with running(r, Naming(), tmp_path) as claim:
        await until(lambda: is_in_progress(r, claim.job.id))


async def test_a_run_that_began_is_in_progress_and_has_its_folder(r: Client, tmp_path: Path) -> None:
    connector = Naming()
    connector.may_begin.set()
    async with running(r, connector, tmp_path) as claim:
        await until(lambda: is_in_progress(r, claim.job.id))
        await until(lambda: asyncio.to_thread((tmp_path / claim.job.id / claim.run).is_dir))


@pytest.mark.parametrize("gone", [True, False], ids=["its store is gone", "its store is a file"])
async def test_a_run_that_cannot_be_prepared_goes_on(r: Client, tmp_path: Path, *, gone: bool) -> None:
    """Only what is saved needs the store; this run saves nothing."""
    connector, store = Naming(), tmp_path / "above" / "store"
    store.parent.mkdir()
    async with running(r, connector, store) as claim:
        if gone:
            store.parent.rmdir()
        else:
            store.write_text("I am a file")
        connector.may_begin.set()
        await until(lambda: is_in_progress(r, claim.job.id))
    assert not store.is_dir()
