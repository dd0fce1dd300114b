"""Runs to give to a connector, with a real artifact store; and web servers that behave as services do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from emp_orch.connectors.base import Run
from emp_orch.jobs.document.model import Job, Output, Progress
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url


def job_of(payload: dict[str, Any], *, job_id: str = "job-1") -> Job:
    return Job(
        id=job_id,
        service="s",
        status=JobStatus.ASSIGNED,
        priority=0,
        requirements=Requirements(service="s"),
        lane="l",
        attempts=1,
        max_retries=0,
        created_ms=0,
        payload=payload,
    )


@dataclass
class Stage:
    """One run, and what its connector told of it."""

    folder: Path
    job: Job
    told: list[Progress] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    previews: list[tuple[str, bytes]] = field(default_factory=list)

    def run(self, name: str = "1") -> Run:
        async def on_progress(progress: Progress) -> None:
            self.told.append(progress)

        async def on_began(ref: str) -> None:
            self.refs.append(ref)

        async def on_preview(content_type: str, picture: bytes) -> None:
            self.previews.append((content_type, picture))

        sink = Artifacts(local_url(self.folder)).run(self.job.id, name)
        return Run(job=self.job, sink=sink, on_progress=on_progress, on_began=on_began, on_preview=on_preview)

    def saved(self, output: Output) -> bytes:
        return (self.folder / self.job.id / output.path).read_bytes()


@contextlib.asynccontextmanager
async def serving(app: web.Application, *, port: int = 0) -> AsyncIterator[str]:
    """`app` on a free port, or on `port`; its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
