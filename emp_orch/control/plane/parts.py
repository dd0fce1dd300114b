"""The parts of the control plane as its supervisord sees them: one of them is the reconciler that asks."""

from __future__ import annotations

import time
from collections.abc import Iterable

from emp_orch.errors import EmpError
from emp_orch.fleet.drift import exits
from emp_orch.fleet.model.observed import ProgramEnd, ProgramReport, ProgramState
from emp_orch.layout import Layout
from emp_orch.runtimes.last_words import secrets_in
from emp_orch.runtimes.process.exits import Logs, look_up
from emp_orch.runtimes.process.supervisor import ProcessInfo, Supervisor

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
    end = last_end(layout, info.name) if state in exits.GONE else None
    return ProgramReport(state=state, pid=info.pid, detail=info.said, last_end=end)


def last_end(layout: Layout, part: str, *, since_ms: int = 0) -> ProgramEnd | None:
    """How a part of the control plane ended last, unasked; None where its supervisord's log does not tell."""
    logs = Logs(own=layout.log("control"), programs=layout.logs, run=layout.control / "run")
    return look_up(logs, part, secrets_in(layout.secrets), since_ms=since_ms)


class PartExits:
    """The unasked ends of parts from now on. One may happen to any; a second one of the same part is no accident."""

    ENOUGH = 2

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._since_ms = int(time.time() * 1000)
        self._pids: dict[str, set[int]] = {}

    def refuse(self, infos: Iterable[ProcessInfo]) -> None:
        """Raise EmpError, with status and last words, for a part that was given up or does not stay up."""
        for info in infos:
            pids = self._pids.setdefault(info.name, set())
            pids |= {info.pid} - {0}
            gone = ProgramState(info.statename) in exits.GONE
            cannot = gone and bool(info.said)
            if cannot or info.statename == ProgramState.FATAL or len(pids) - (not gone) >= self.ENOUGH:
                log = self._layout.log("control" if cannot else info.name)
                raise EmpError(
                    f"{info.name} of the control plane does not stay up: {self._why(info)}", hint=f"see {log}"
                )

    def _why(self, info: ProcessInfo) -> str:
        if info.said:
            return f"supervisord cannot start it ({info.said})"
        end = last_end(self._layout, info.name, since_ms=self._since_ms)
        return f"it {exits.told(end)}" if end else f"it {why_down(self._layout, info) or 'ended, nobody saw how'}"


def why_down(layout: Layout, info: ProcessInfo) -> str:
    """Why a part does not run that should; empty for one that does, and where nobody knows."""
    report = _report(layout, info)
    return exits.why_gone(report) or report.detail
