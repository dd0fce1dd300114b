"""The parts of the control plane as its supervisord sees them: one of them is the reconciler that asks."""

from __future__ import annotations

import time

from emp_orch.errors import EmpError
from emp_orch.fleet import ends
from emp_orch.fleet.observed import ProgramEnd, ProgramReport, ProgramState
from emp_orch.layout import Layout
from emp_orch.runtimes.last_words import secrets_in
from emp_orch.runtimes.program_end import Logs, look_up
from emp_orch.runtimes.supervisor import ProcessInfo, Supervisor

# A part that supervisord gave up does not come back by itself: there is no hurry.
EVERY_S = 5.0


class Parts:
    """Asks at most each EVERY_S. Nobody is said to be down by a supervisord that does not answer."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
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
        self._found = {info.name: _report(self._layout, info) for info in infos}
        return self._found


def _report(layout: Layout, info: ProcessInfo) -> ProgramReport:
    state = ProgramState(info.statename)
    end = last_end(layout, info.name) if state in ends.GONE else None
    return ProgramReport(state=state, pid=info.pid, detail=info.said, last_end=end)


def last_end(layout: Layout, part: str) -> ProgramEnd | None:
    """How a part of the control plane ended last, unasked; None where its supervisord's log does not tell."""
    logs = Logs(own=layout.log("control"), programs=layout.logs, run=layout.control / "run")
    return look_up(logs, part, secrets_in(layout.secrets))


def why_down(layout: Layout, info: ProcessInfo) -> str:
    """Why a part does not run that should; empty for one that does, and where nobody knows."""
    report = _report(layout, info)
    return ends.why_gone(report) or report.detail
