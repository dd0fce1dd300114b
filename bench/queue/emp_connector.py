"""A connector without a service: a run leaves the job's stamp and is done. A whole `emp worker` runs it.

It is found as any package's connector is, by an entry point; processes.py writes that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.peers.given import began
from emp_orch.connectors.base import Run
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import Result
from emp_orch.options.base import no_options

KIND = "bench"
ENTRY_POINT = f"[emp.connectors]\n{KIND} = bench.queue.emp_connector:Stamp\n"


class Stamp:
    """The connector: always idle, its runs take no time."""

    kind = KIND

    def __init__(self, _url: str, options: Mapping[str, Any]) -> None:
        no_options(KIND, options)

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        began(run.job.payload["job"])
        return Result()

    async def cancel(self) -> None:
        """There is nothing to stop."""

    async def close(self) -> None:
        """There is nothing to release."""
