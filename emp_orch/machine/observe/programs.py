"""Follows what supervisord's programs do: its events, and a listing now and then.

Its events tell of every change as it happens (machine/supervision). A supervisord that was started before there was
that extension tells them too, up to a second later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.machine.home.programs import Programs
from emp_orch.runtimes.process.supervisor import Supervisor

RESYNC_S = 10.0


class Watch:
    """Keeps `programs` up to date. `tell(type, …)` publishes an event; `offset_ms()` is Redis' clock less ours."""

    def __init__(
        self,
        programs: Programs,
        supervisor: Supervisor,
        *,
        tell: Callable[..., None],
        offset_ms: Callable[[], int],
    ) -> None:
        self._programs = programs
        self._supervisor = supervisor
        self._tell = tell
        self._offset_ms = offset_ms

    async def run(self) -> None:
        """A full listing now and then: a safety net below events."""
        while True:
            await asyncio.sleep(RESYNC_S)
            with suppress(EmpError):
                await self.refresh_all()

    async def refresh_all(self) -> None:
        """Take over a full listing. Raises EmpError when supervisord does not answer."""
        self._programs.offset_ms = self._offset_ms()
        await self._programs.replace_all(await self._supervisor.all_processes())

    async def refresh(self, name: ProgramName) -> None:
        """Ask for one program's state, and publish a change."""
        try:
            info = await self._supervisor.process(name)
        except EmpError:
            return  # removed meanwhile, or supervisord is ending; the listing tells
        self._programs.offset_ms = self._offset_ms()
        before = await self._programs.update(info)
        if before != info.statename:
            self._tell("program_state", program=name, state=info.statename, was=before, pid=info.pid)
