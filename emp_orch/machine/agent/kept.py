"""What an agent goes by: the configuration in force, and its state on disk, which outlives a restart of the agent."""

from __future__ import annotations

import logging
from typing import Any

from msgspec import structs

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.machine.home.programs import Programs
from emp_orch.store.fleet.configs import MachineConfig

log = logging.getLogger("agent")


class Kept:
    """`config` is the configuration in force, `state` what is on disk. The unasked ends of `programs` are kept too."""

    def __init__(self, folder: MachineFolder, config: MachineConfig, programs: Programs, boot_id: str) -> None:
        self._folder = folder
        self._programs = programs
        self.config = config
        self.state = folder.read_state(boot_id)
        programs.ends_ms = dict(self.state.ends_ms)

    @property
    def machine(self) -> DesiredMachine:
        return self.config.machine

    def remember(self, **changes: Any) -> None:
        """Keep the state on disk; where that fails, the machine works on, and only a restart of the agent forgets."""
        self.state = structs.replace(self.state, **changes)
        try:
            self._folder.write_state(self.state)
        except EmpError as e:
            log.error("%s", e.message)

    def remember_ends(self, ends_ms: dict[ProgramName, tuple[int, ...]]) -> None:
        self._programs.ends_ms = ends_ms
        self.remember(ends_ms=ends_ms)

    async def hold(self, name: ProgramName, held: bool) -> None:
        """Keep the start-up sequence off `name`, or let it be started again. Its ends are counted anew: whoever stops
        or starts it has dealt with the former ones, and a mended program must not be stopped for them.
        """
        others = tuple(n for n in self.state.stopped if n != name)
        self.remember(stopped=(*others, name) if held else others)
        self.remember_ends({n: e for n, e in self._programs.ends_ms.items() if n != name})
        await self._programs.touch()
