"""Where a machine runs, for people who want to get into it: on this host, in a container, or out of our reach.

Works with Redis and the control plane down: what was applied is on disk, and the runtimes know the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emp_orch import settings as settings_files
from emp_orch.control.host import generation as generations
from emp_orch.errors import EmpError, UsageError
from emp_orch.fleet.model.fleet import Machine, MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.layout import Layout
from emp_orch.runtimes.process.runtime import ProcessRuntime
from emp_orch.settings import Settings

if TYPE_CHECKING:
    from emp_orch.runtimes.compose.engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHost:
    """A process group of this host: its folder, and the pid of its supervisord. `machine` None: emp.yaml has it no
    more."""

    machine: Machine | None
    home: Path
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InContainer:
    machine: Machine | None
    engine: Engine
    container_id: str


Location = OnHost | InContainer


class NotRunning(EmpError):
    """The machine is ours, and does not run."""


class OutOfReach(EmpError):
    """The machine is a box of its own: it comes to us, and we cannot go to it."""


async def find(layout: Layout, name: str) -> Location:
    """Where machine `name` runs. Raises UsageError when there is none, Unreachable when its Docker host is away,
    NotRunning, OutOfReach.
    """
    settings = settings_files.load(layout)
    wanted = machines(layout)
    machine_id = MachineId(name)
    machine = wanted.get(machine_id)
    instance = (await ProcessRuntime(layout, settings).instances()).get(machine_id)
    if instance is not None and instance.state is InstanceState.RUNNING:
        return OnHost(machine=machine, home=layout.machine(name), pid=instance.pid)
    if _may_be_container(layout, machine, machine_id):
        engine, container_id = await _container(layout, settings, machine_id)
        return InContainer(machine=machine, engine=engine, container_id=container_id)
    if machine is None and instance is None:
        raise unknown(name, wanted)
    if machine is not None and not machine.traits.reached:
        raise OutOfReach(
            f"{name} is a box of its own: emp cannot reach it, it reports by itself",
            hint="log in where it runs, by the way you have to it",
        )
    raise NotRunning(
        f"{name} does not run: {_why(instance)}", hint=f"`emp diff` says what is done about it; emp logs {name}"
    )


def machines(layout: Layout) -> dict[MachineId, Machine]:
    """The machines that were applied last here."""
    generation = generations.kept(layout)
    return {m.id: m for m in generation.fleet.machines} if generation else {}


def unknown(name: str, known: Iterable[str]) -> UsageError:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    also = f"; did you mean {near[0]}?" if near else ""
    return UsageError(f"there is no machine {name!r} in this fleet{also}", hint="`emp status` shows them all")


def _why(instance: Instance | None) -> str:
    return instance.detail if instance and instance.detail else "it was never started"


def _may_be_container(layout: Layout, machine: Machine | None, machine_id: MachineId) -> bool:
    """One that left emp.yaml, or became another kind, may still run where it was placed."""
    if machine is not None and machine.traits.in_container:
        return True
    return any((host / "machines" / f"{machine_id}.json").exists() for host in _hosts(layout))


def _hosts(layout: Layout) -> list[Path]:
    try:
        return sorted(layout.hosts.iterdir())
    except OSError:
        return []


async def _container(layout: Layout, settings: Settings, machine_id: MachineId) -> tuple[Engine, str]:
    from emp_orch.runtimes.compose.runtime import ComposeRuntime  # the Docker SDK takes its time to import

    found = await ComposeRuntime(layout, settings).container(machine_id)
    if found is None:
        raise NotRunning(
            f"{machine_id} has no container that runs", hint=f"`emp diff` says why; emp logs machine-{machine_id}"
        )
    return found
