"""The parts of the control plane as its supervisord sees them: one of them is the reconciler that asks."""

from __future__ import annotations

import time

from emp_orch.errors import EmpError
from emp_orch.fleet.observed import ProgramReport, ProgramState
from emp_orch.layout import Layout
from emp_orch.runtimes.supervisor import Supervisor

# A part that supervisord gave up does not come back by itself: there is no hurry.
EVERY_S = 5.0


class Parts:
    """Asks at most each EVERY_S. Nobody is said to be down by a supervisord that does not answer."""

    def __init__(self, layout: Layout) -> None:
        self._supervisor = Supervisor(layout.control)
        self._asked_s = -EVERY_S
        self._found: dict[str, ProgramReport] = {}

    async def look(self) -> dict[str, ProgramReport]:
        if time.monotonic() - self._asked_s < EVERY_S:
            return self._found
        self._asked_s = time.monotonic()
        try:
            infos = await self._supervisor.all_processes()
        except EmpError:
            infos = []
        self._found = {
            info.name: ProgramReport(state=ProgramState(info.statename), pid=info.pid, detail=info.spawnerr)
            for info in infos
        }
        return self._found
