"""What every runtime can do: start, stop and list machines. It starts what it is told and judges nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance


class Runtime(Protocol):
    """A way to run machines. Its calls may take as long as a machine's drain; they raise EmpError."""

    async def start(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, generation: int, command_key: bytes
    ) -> None:
        """Start `machine`, as `generation` has it; one that runs already is left alone, but for what only a new
        container can change. `secrets` are the resolved references it needs, `command_key` the content of the
        file with the key that it knows its commands by.
        """
        ...

    async def prepare(self, machine: DesiredMachine) -> None:
        """Have all there that a start of `machine` needs, before anything of it is stopped. Raises EmpError when it
        cannot be had.
        """
        ...

    async def stop(self, machine_id: MachineId) -> None:
        """Stop the machine and everything it started: in good order first, by force after its drain timeout."""
        ...

    async def put_secrets(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, command_key: bytes = b""
    ) -> None:
        """Give a machine that runs the values its programs need from their next start on, and `command_key`, where that
        is not empty, to know its commands by from now on.
        """
        ...

    async def instances(self) -> dict[MachineId, Instance]:
        """Every machine this runtime ever started here and still knows of, with whether it lives."""
        ...

    async def watch(self, changed: Callable[[], None]) -> None:
        """Until cancelled: call `changed`, from any thread, when a machine may have started or ended."""
        ...

    async def clear(self, *, volumes: bool = False) -> list[str]:
        """After all machines were stopped: remove what is no data, so that nothing of the fleet is left running, and no
        secret where it is not at home. With `volumes` those go too: their names.
        """
        ...

    async def remove(self, machine_id: MachineId) -> None:
        """Forget a machine that was stopped: its folder goes."""
        ...
