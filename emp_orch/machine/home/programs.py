"""What the agent knows of its programs: supervisord's states and our health checks, with a way to await them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from emp_orch.fleet.model.fleet import AGENT, ProgramName
from emp_orch.fleet.model.observed import ProgramEnd, ProgramReport, ProgramState
from emp_orch.runtimes.process.supervisor import ProcessInfo

_STARTED = frozenset({ProgramState.STARTING, ProgramState.RUNNING})
# How long the report of a program that is well again tells how it ended before.
END_TOLD_MS = 600_000


class Programs:
    """The programs' reports. `offset_ms` turns this host's clock into Redis' (0 until Redis was heard).

    `ends_ms` are the unasked ends of each, `last_exits` how the last of them came, by this host's clock.
    """

    def __init__(self) -> None:
        self.reports: dict[ProgramName, ProgramReport] = {}
        self.offset_ms = 0
        self.ends_ms: dict[ProgramName, tuple[int, ...]] = {}
        self.last_exits: dict[ProgramName, ProgramEnd] = {}
        self._changed = asyncio.Condition()
        self.on_change: Callable[[], None] = lambda: None

    def get(self, name: ProgramName) -> ProgramReport | None:
        return self.reports.get(name)

    async def wait(self, ready: Callable[[], bool]) -> None:
        """Until `ready()`; looked at after every change."""
        async with self._changed:
            await self._changed.wait_for(ready)

    async def touch(self) -> None:
        """Wake those who wait: something changed that they may look at."""
        self.on_change()
        async with self._changed:
            self._changed.notify_all()

    async def replace_all(self, infos: list[ProcessInfo]) -> None:
        """Take over a full listing: programs that are gone are dropped, health is kept for an unchanged process."""
        self.reports = {ProgramName(i.name): self._merged(i) for i in infos if i.name != AGENT}
        await self.touch()

    async def update(self, info: ProcessInfo) -> ProgramState:
        """Take over one program's state; returns the state before."""
        name = ProgramName(info.name)
        before = self.reports.get(name)
        self.reports[name] = self._merged(info)
        await self.touch()
        return before.state if before else ProgramState.UNKNOWN

    async def set_health(
        self, name: ProgramName, healthy: bool | None, detail: str, *, never_healthy: bool = False
    ) -> None:
        """Take over a probe's verdict; None: not known yet, `detail` says what the last probe met."""
        report = self.reports.get(name)
        if report is None:
            return
        told = structs.replace(report, healthy=healthy, detail=detail, never_healthy=never_healthy)
        if told != report:
            self.reports[name] = told
            await self.touch()

    async def set_port_taken(self, name: ProgramName, by: str) -> None:
        """Take over who else listens on its port; empty when nobody does."""
        report = self.reports.get(name)
        if report is not None and report.port_taken_by != by:
            self.reports[name] = structs.replace(report, port_taken_by=by)
            await self.touch()

    def _merged(self, info: ProcessInfo) -> ProgramReport:
        before = self.reports.get(ProgramName(info.name))
        state = ProgramState(info.statename)
        same = before is not None and before.pid == info.pid and info.pid != 0
        began = before is not None and not same and state in _STARTED
        restarts = before.restarts if before else 0
        since_s = info.start if state in _STARTED else (info.stop or info.start)
        return ProgramReport(
            state=state,
            pid=info.pid,
            since_ms=since_s * 1000 + self.offset_ms if since_s else 0,
            restarts=restarts + 1 if began and before and before.since_ms else restarts,
            exit_status=info.exitstatus if state is ProgramState.EXITED else None,
            healthy=before.healthy if before and same else None,
            detail=info.said or (before.detail if before and same else ""),
            ends_ms=tuple(ms + self.offset_ms for ms in self.ends_ms.get(ProgramName(info.name), ())),
            port_taken_by=before.port_taken_by if before else "",
            last_end=self._told_end(info, state),
            never_healthy=before.never_healthy if before and same else False,
        )

    def _told_end(self, info: ProcessInfo, state: ProgramState) -> ProgramEnd | None:
        """Its last end, while it is of any use: always for one that is down, for a while for one that runs again."""
        end = self.last_exits.get(ProgramName(info.name))
        if end is None or (state in _STARTED and info.now * 1000 - end.at_ms > END_TOLD_MS):
            return None
        return structs.replace(end, at_ms=end.at_ms + self.offset_ms)


def packages_in_use(programs: Programs) -> frozenset[str] | None:
    """The worker packages that processes run from; None while one is about to start, and could be from any."""
    if any(report.state is ProgramState.STARTING for report in programs.reports.values()):
        return None
    return frozenset(filter(None, (_package_of(report.pid) for report in programs.reports.values() if report.pid)))


def _package_of(pid: int) -> str:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""  # it has ended
    return next((v.removeprefix(b"EMP_PACKAGE=").decode() for v in variables if v.startswith(b"EMP_PACKAGE=")), "")
