"""A connector that shows the pictures a test gives it, and a job that a worker runs on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from emp_orch.connectors.base import Run
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Result
from emp_orch.store.artifacts.previews import Previews
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import Done
from support.http.stack import Producer
from support.redis.server import job
from support.worker.config import CONFIG


class Painter:
    """Shows what a test puts into `shown`, and ends at its end."""

    kind = "painter"

    def __init__(self) -> None:
        self.shown: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue()

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        while (one := await self.shown.get()) is not None:
            await run.preview(*one)
        return Result()

    async def cancel(self) -> None: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def painting(producer: Producer, folder: Path, painter: Painter) -> AsyncIterator[str]:
    """A job that a worker runs; at the end of the block it completes."""
    queue = Queue(producer.redis, producer.keys)
    claims = Claims(producer.redis, producer.keys, "m-worker-0", lease_s=30)
    job_id = (await queue.submit(job())).job_id
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    given = Assignment(
        claim=claim,
        connector=painter,
        binding=ServiceBinding(service="simulation", connector="painter", url="http://127.0.0.1:1"),
        artifacts=Artifacts(local_url(folder)),
        previews=Previews(producer.redis, producer.keys),
    )
    run = asyncio.create_task(JobRun(claims, given, CONFIG, asyncio.Event()).run())
    try:
        yield job_id
        painter.shown.put_nowait(None)
        outcome = await run
        assert isinstance(outcome, Done)
        await claims.completed(claim, outcome.result)
    finally:
        run.cancel()
        await claims.aclose()
