"""Follows what supervisord's programs do: events, the kernel's word on ended processes, a listing now and then.

supervisord's loop looks for ended children and elapsed start times only once a second, unless something wakes it.
Any call does, so while a program is on its way from one state to another, it is asked until it has arrived.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from emp_orch.errors import EmpError
from emp_orch.fleet.model import ProgramName
from emp_orch.fleet.observed import ProgramState
from emp_orch.machine.lives import Lives
from emp_orch.machine.programs import Programs
from emp_orch.runtimes.supervisor import Supervisor

RESYNC_S = 10.0
# The pauses between two questions about a program on its way: quick for a replacement, slow for a start.
PAUSES_S = (0.005,) * 10 + (0.05,) * 100

_ARRIVED = frozenset({ProgramState.RUNNING, ProgramState.STOPPED, ProgramState.FATAL})


class Watch:
    """Keeps `programs` up to date. `tell(type, …)` publishes an event; `offset_ms()` is Redis' clock less ours."""

    def __init__(
        self,
        programs: Programs,
        supervisor: Supervisor,
        group: asyncio.TaskGroup,
        *,
        tell: Callable[..., None],
        offset_ms: Callable[[], int],
    ) -> None:
        self._programs = programs
        self._supervisor = supervisor
        self._group = group
        self._tell = tell
        self._offset_ms = offset_ms
        self._following: set[ProgramName] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lives = Lives(programs, self._ended)

    async def run(self) -> None:
        """A full listing now and then: a safety net below events and pidfds."""
        try:
            with self._lives:
                while True:
                    await asyncio.sleep(RESYNC_S)
                    with suppress(EmpError):
                        await self.refresh_all()
        finally:
            for task in self._tasks:
                task.cancel()

    async def refresh_all(self) -> None:
        """Take over a full listing. Raises EmpError when supervisord does not answer."""
        self._programs.offset_ms = self._offset_ms()
        await self._programs.replace_all(await self._supervisor.all_processes())
        self._lives.follow()

    async def refresh(self, name: ProgramName) -> bool:
        """Ask for one program's state, publish a change, and follow it if it is on its way. False: it is unknown."""
        try:
            info = await self._supervisor.process(name)
        except EmpError:
            return False  # removed meanwhile, or supervisord is ending; the listing tells
        self._programs.offset_ms = self._offset_ms()
        before = await self._programs.update(info)
        if before != info.statename:
            self._tell("program_state", program=name, state=info.statename, was=before, pid=info.pid)
        self._lives.follow()
        if info.statename == ProgramState.STARTING:
            self._follow(name, ended_pid=0)
        return True

    def _ended(self, name: ProgramName, pid: int) -> None:
        self._follow(name, ended_pid=pid)

    def _follow(self, name: ProgramName, *, ended_pid: int) -> None:
        if name not in self._following:
            self._following.add(name)
            task = self._group.create_task(self._until_arrived(name, ended_pid), name=f"follow {name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _until_arrived(self, name: ProgramName, ended_pid: int) -> None:
        try:
            for pause_s in PAUSES_S:
                if not await self.refresh(name):
                    return
                report = self._programs.get(name)
                if report is None or (report.state in _ARRIVED and report.pid != ended_pid):
                    return
                await asyncio.sleep(pause_s)
        finally:
            self._following.discard(name)
