"""Who took a program's port: looked for only while something is wrong with the program, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import ProgramReport, ProgramState
from emp_orch.host import ports
from emp_orch.host.ports import Holder
from emp_orch.machine.home.programs import Programs
from emp_orch.procident import ancestors, identify

# The pause between two looks doubles while they find the same.
PAUSE_S = 1.0
MAX_PAUSE_S = 5.0

_DOWN = frozenset({ProgramState.BACKOFF, ProgramState.FATAL, ProgramState.EXITED})
_UP = frozenset({ProgramState.STARTING, ProgramState.RUNNING})


class Asked(Struct, frozen=True, kw_only=True):
    """A program whose port is looked at. `pid` is 0 while it does not run."""

    name: ProgramName
    port: int
    pid: int
    told: str


def in_trouble(program: DesiredProgram, report: ProgramReport) -> bool:
    """Whether somebody else on its port could be why `program` is not up."""
    if program.port is None or program.kind.once:
        return False
    if report.state in _UP:
        return program.health is not None and report.healthy is not True
    return report.state in _DOWN


def to_look_at(program: DesiredProgram, report: ProgramReport | None) -> bool:
    """In trouble, or of late: one without a health check seems well between two ends."""
    if program.port is None or report is None:
        return False
    late = report.port_taken_by != "" and report.state in _UP and report.healthy is not True
    return late or in_trouble(program, report)


def verdict(asked: Asked, holders: list[Holder], *, is_ours: Callable[[Holder], bool]) -> str:
    """What to tell of who listens on its port: empty when it is one of ours, or nobody."""
    if any(is_ours(h) for h in holders):
        return ""
    for holder in holders:
        if holder.pid == 0 and asked.pid:
            return asked.told  # may be something that the program itself had another user start
        if holder.pid == 0:
            return str(holder)
        # What came after the program may be there on its behalf: the proxy of its container, say.
        if not asked.pid or _older(holder.pid, asked.pid):
            return f"pid {holder.pid} ({holder.name})"
    return ""


def _older(pid: int, than: int) -> bool:
    one, other = identify(pid), identify(than)
    return one is not None and other is not None and one.start_ticks < other.start_ticks


def look(asked: list[Asked], pids: frozenset[int], supervisord: int) -> dict[ProgramName, str]:
    """The verdict on each. Ours are the children of `supervisord`, and the groups of `pids`. Blocks for a moment."""
    found = ports.listeners({a.port for a in asked})

    def is_ours(holder: Holder) -> bool:
        return holder.pid != 0 and (holder.group in pids or supervisord in ancestors(holder.pid))

    return {a.name: verdict(a, found.get(a.port, []), is_ours=is_ours) for a in asked}


async def watch(machine: DesiredMachine, programs: Programs, supervisord: int) -> None:
    """Keep `port_taken_by` of the machine's programs up to date for as long as this task runs."""
    pause_s = PAUSE_S
    while True:
        await programs.wait(lambda: bool(_asked(machine, programs)) or bool(_stale(machine, programs)))
        for name in _stale(machine, programs):
            await programs.set_port_taken(name, "")
        if not (asked := _asked(machine, programs)):
            continue
        pids = frozenset(r.pid for r in programs.reports.values() if r.pid)
        found = await asyncio.to_thread(look, asked, pids, supervisord)
        same = all(found[a.name] == a.told for a in asked)
        for name, by in found.items():
            await programs.set_port_taken(name, by)
        pause_s = min(pause_s * 2, MAX_PAUSE_S) if same else PAUSE_S
        await asyncio.sleep(pause_s)


def _asked(machine: DesiredMachine, programs: Programs) -> list[Asked]:
    return [
        Asked(name=p.name, port=p.port, pid=report.pid, told=report.port_taken_by)
        for p in machine.programs
        if p.port is not None and (report := programs.get(p.name)) is not None and to_look_at(p, report)
    ]


def _stale(machine: DesiredMachine, programs: Programs) -> list[ProgramName]:
    """Those that are well, or were stopped, since somebody was named."""
    reports = [(p, programs.get(p.name)) for p in machine.programs]
    return [p.name for p, r in reports if r is not None and r.port_taken_by and not to_look_at(p, r)]
