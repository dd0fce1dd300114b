"""What each command does on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import assert_never

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import AGENT, ProgramName
from emp_orch.host import notice
from emp_orch.machine.agent.parts import Parts
from emp_orch.machine.agent.takeover import Takeover
from emp_orch.store.fleet.commands import CommandVerb, StampedCommand

log = logging.getLogger("agent")


class CarryOut:
    """`stop` ends this agent in good order; its supervisord starts the next."""

    def __init__(self, parts: Parts, takeover: Takeover, stop: Callable[[], None]) -> None:
        self._parts = parts
        self._takeover = takeover
        self._stop = stop
        self._outdated = False

    async def command(self, command: StampedCommand) -> None:
        """Carry `command` out. Raises EmpError."""
        supervisor = self._parts.supervisor
        match command.verb:
            case CommandVerb.APPLY_CONFIG:
                await self._takeover.apply()
            case CommandVerb.START_PROGRAM:
                await supervisor.start(await self._about_to_start(command))
            case CommandVerb.RESTART_PROGRAM if command.program == AGENT:
                self._outdated = True
            case CommandVerb.RESTART_PROGRAM:
                name = await self._about_to_start(command)
                self._parts.last_exits.asked(name, command.cause)
                await supervisor.restart(name)
            case CommandVerb.STOP_PROGRAM:
                name = self._known(command.program)
                await self._parts.kept.hold(name, True)
                program = self._parts.kept.machine.program(name)
                await supervisor.stop_for_good(name, autorestart=program is None or not program.kind.once)
            case _:
                assert_never(command.verb)

    def answered(self) -> None:
        """A command is acknowledged: one that asks this agent to end has its answer first."""
        if self._outdated:
            log.info("asked to end: the next agent runs the emp that is here now")
            self._stop()

    async def _about_to_start(self, command: StampedCommand) -> ProgramName:
        name = self._known(command.program)
        if notice.is_given(self._parts.folder.root):  # its worker would take the job again that it just gave back
            raise EmpError(f"{self._parts.kept.machine.id} is about to end: nothing is started there any more")
        await self._takeover.fetch_secrets(self._parts.kept.config)
        await self._parts.kept.hold(name, False)
        return name

    def _known(self, text: str | None) -> ProgramName:
        name = ProgramName(text or "")
        if self._parts.programs.get(name) is None:
            raise EmpError(f"no program {text!r} on {self._parts.kept.machine.id}")
        return name
