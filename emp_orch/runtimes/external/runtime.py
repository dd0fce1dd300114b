"""The external runtime: a box that somebody else starts, and that joined by itself.

emp can neither start it nor stop it nor see whether it runs: all it knows of it is what it reports. It never says
that such a machine is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.join_tokens import JoinTokens


class ExternalRuntime:
    """The boxes that joined the fleet in `layout`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def start(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, generation: int, command_key: bytes
    ) -> None:
        _cannot(machine.id, "start")

    async def prepare(self, machine: DesiredMachine) -> None:
        """Nothing: all that it needs is where it starts."""

    async def stop(self, machine_id: MachineId) -> None:
        _cannot(machine_id, "stop")

    async def put_secrets(
        self, machine: DesiredMachine, secrets: Mapping[str, str], *, command_key: bytes = b""
    ) -> None:
        """Nothing: values and keys never go through Redis. The box asks the API for them (machine/boot/join.py)."""

    async def instances(self) -> dict[MachineId, Instance]:
        """None: who is not among them may run all the same (`RuntimeTraits.seen`)."""
        return {}

    async def shut_out(self) -> frozenset[MachineId]:
        """Machines that nobody can join as with what was given out so far; none where that cannot be read."""
        with suppress(EmpError):
            return await asyncio.to_thread(JoinTokens(self._layout).shut_out)
        return frozenset()

    async def watch(self, changed: Callable[[], None]) -> None:
        """Nobody tells."""
        await asyncio.Event().wait()

    async def clear(self, *, volumes: bool = False) -> list[str]:
        """Nothing of it is here."""
        return []

    async def remove(self, machine_id: MachineId) -> None:
        """Let nobody join as `machine_id` any more with what was given out so far."""
        await asyncio.to_thread(JoinTokens(self._layout).revoke, machine_id)


def _cannot(machine_id: MachineId, what: str) -> NoReturn:
    raise EmpError(
        # In one: a message goes further than its hint.
        f"{machine_id} is a box of its own: emp cannot {what} it; {what} it where it is "
        f"(`emp machine join {machine_id}` prints the line that starts it; of a member of a pool `emp pool join`)"
    )
