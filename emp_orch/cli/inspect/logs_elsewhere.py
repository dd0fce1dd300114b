"""`emp logs` of a machine in a container of another Docker host: its own emp shows what lies there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from emp_orch.errors import UsageError
from emp_orch.images import PYTHON

if TYPE_CHECKING:
    from emp_orch.layout import Layout

# Its image says where.
_HERE = f'exec {PYTHON} -I -m emp_orch -C "${{EMP_MACHINE_LOGS%/logs}}" logs "$@"'
_EMP = ("sh", "-c", _HERE, "emp")


def machine_elsewhere(layout: Layout, components: Sequence[str], known: Sequence[str]) -> str:
    """The machine whose logs are not here, of the one that `components` name; empty when they are.

    `known` are the components that have files here. Raises UsageError for several that are not all here.
    """
    from emp_orch.control.logs.files import MACHINE
    from emp_orch.control.status.location import machines
    from emp_orch.fleet.model.fleet import MachineId

    wanted, there = machines(layout), []
    for word in components:
        name = word.partition("/")[0]
        name = name if name in wanted else name.removeprefix(MACHINE)
        machine = wanted.get(MachineId(name))
        here = any(k in known for k in (word, MACHINE + word))
        if machine is not None and not machine.traits.shares_host and not here:
            there.append(name)
    if there and len(components) > 1:
        raise UsageError(f"the logs of {there[0]} are on its own host", hint=f"ask for them alone: emp logs {there[0]}")
    return there[0] if there else ""


def show(layout: Layout, machine: str, component: str, options: Sequence[str]) -> NoReturn:
    """Become the machine's own `emp logs`. Raises as location.find."""
    from emp_orch.cli.commands.exec import become
    from emp_orch.control.logs.files import MACHINE
    from emp_orch.control.status.exec import exec_call
    from emp_orch.control.status.location import find

    program = component.partition("/")[2]
    name = f"{MACHINE}{machine}" + (f"/{program}" if program else "")
    location = asyncio.run(find(layout, machine))
    become(exec_call(layout, location, (*_EMP, name, *options), terminal=False))
