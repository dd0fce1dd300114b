"""A connector without a service: a run waits as long as its job says. What runs, and what began where, is kept here.

It is found as any package's connector is, by an entry point that `install` leaves in a folder on the path.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_orch.connectors.base import Run
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Progress, Result
from emp_orch.options.base import no_options

KIND = "bench-waits"


class Runs:
    """Of this process: which job a worker has in hand, and when each run of a job began, by the monotonic clock."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.began_s: dict[str, list[float]] = {}

    def clear(self) -> None:
        self.held.clear()
        self.began_s.clear()


RUNS = Runs()


class Waits:
    """The connector: always idle, its runs take the payload's `seconds`."""

    kind = KIND

    def __init__(self, _url: str, options: Mapping[str, Any]) -> None:
        no_options(KIND, options)

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        job = run.job
        worker = job.worker_id or ""
        RUNS.held[worker] = job.id
        RUNS.began_s.setdefault(job.id, []).append(time.monotonic())
        try:
            await run.began(f"run-{job.id}")
            await run.progress(Progress(fraction=0.5))
            await asyncio.sleep(float(job.payload["seconds"]))
        finally:
            RUNS.held.pop(worker, None)
        return Result()

    async def cancel(self) -> None:
        """There is nothing to stop."""

    async def close(self) -> None:
        """There is nothing to release."""


def install(folder: Path) -> None:
    """Have this process find the connector, as an installed package's is found."""
    about = folder / "emp_bench_pools-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emp-bench-pools\nVersion: 0\n")
    (about / "entry_points.txt").write_text(f"[emp.connectors]\n{KIND} = {__name__}:Waits\n")
    sys.path.append(str(folder))
