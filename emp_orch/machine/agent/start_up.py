"""Health checks and the start-up sequence, for the configuration in force; and supervisord's own turn to it."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import AGENT
from emp_orch.host import sessions
from emp_orch.machine.agent.parts import Parts
from emp_orch.machine.agent.report import SelfReport
from emp_orch.machine.boot.sequence import Sequence
from emp_orch.machine.health import ports, probes
from emp_orch.machine.health.checks import check_of
from emp_orch.machine.home.box_gpus import as_allotted

log = logging.getLogger("agent")


class StartUp:
    """One task of `group` at a time, begun anew for each configuration that is taken over."""

    def __init__(self, parts: Parts, report: SelfReport, group: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._report = report
        self._group = group
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self.task = self._group.create_task(self._run(), name="start-up")

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        parts, machine = self._parts, self._parts.kept.machine
        # A former agent may have been killed half way through a reload; where nothing differs this does nothing.
        with suppress(EmpError):
            await self.reload()
            await parts.watch.refresh_all()
        sequence = Sequence(
            machine,
            parts.programs,
            parts.supervisor,
            first="machine_startup:ready" not in parts.kept.state.announced,
            held=lambda name: name in parts.kept.state.stopped,
            announce=self._announce,
            set_status=self._report.set_status,
            before_workers=parts.packages.before_start,
        )
        async with sessions.straight() as session, asyncio.TaskGroup() as group:
            for program in as_allotted(machine, os.environ).programs:
                ask = check_of(program, session, parts.commands)
                if program.health is not None and ask is not None:
                    group.create_task(probes.watch(parts.programs, program, program.health, ask))
            group.create_task(ports.watch(machine, parts.programs, os.getppid()), name="ports")
            group.create_task(sequence.run(), name="sequence")

    def _announce(self, key: str | None, type_: str, **data: Any) -> None:
        """Publish an event; one with a key only once a boot."""
        kept = self._parts.kept
        if key is not None:
            if key in kept.state.announced:
                return
            kept.remember(announced=(*kept.state.announced, key))
        self._parts.link.event(type_, **data)

    async def reload(self) -> tuple[list[str], list[str], list[str]]:
        """supervisord takes over its files as they are on disk: the programs that are new, others, or gone."""
        added, changed, removed = await self._parts.supervisor.reload(keep=lambda name: name == AGENT)
        if added or changed or removed:
            log.info("supervisord reloaded: %d added, %d changed, %d removed", len(added), len(changed), len(removed))
        return added, changed, removed
