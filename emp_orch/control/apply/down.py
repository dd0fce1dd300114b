"""`emp down`: stop what `apply` started, machines first, and nothing else.

The fleet in a folder is stopped by what its `.emp/` tells, and then, as that can be moved and removed, by the marks of
its processes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

from emp_orch import settings as settings_files
from emp_orch.control.host.hosted import Hosted, processes_of
from emp_orch.control.host.marked import Find, end_marked
from emp_orch.control.limits import PLANE_STOP_S
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.control.pools.giving_back import give_back
from emp_orch.control.upkeep.logins import withdraw_all
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.model.fleet import Fleet, MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.render.box import stop_grace_s
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.runtimes.base import Runtime

Tell = Callable[[str], None]

# Each step has a margin of its own.
MARGIN_S = 30.0


def longest_s(fleet: Fleet) -> int:
    """How long `fleet` may take to end in order: its machines beside each other, then its control plane."""
    machines = max((stop_grace_s(m) for m in desired_machines(fleet).values()), default=0.0)
    return round(machines + PLANE_STOP_S + MARGIN_S)


async def bring_down(layout: Layout, tell: Tell, *, volumes: bool = False, boxes: bool = True) -> list[MachineId]:
    """Stop every machine of this fleet's folder and its control plane; returns the machines that ran. With `volumes`
    those of its containers are removed; without `boxes` those of pools run on, as for a host that comes up again.

    Raises EmpError when something runs on all the same, CopiedFolder when what runs is another folder's.
    """
    ownership.refuse_copies(layout.root)
    ran = await _stop_in_order(layout, tell, volumes=volumes, boxes=boxes) if layout.control.is_dir() else []
    return await _end_by_marks(lambda: ownership.look(layout.root).running, ran, tell)


async def bring_down_fleet(fleet: Hosted, tell: Tell, *, volumes: bool = False) -> list[MachineId]:
    """The same for a fleet anywhere on this host, also when its folder is gone."""
    if fleet.folder is not None:
        return await bring_down(Layout(fleet.folder), tell, volumes=volumes)
    return await _end_by_marks(lambda: processes_of(fleet), [], tell)


async def _end_by_marks(find: Find, ran: list[MachineId], tell: Tell) -> list[MachineId]:
    """End what is left; the machines that ran, those found so included."""
    found = await asyncio.to_thread(lambda: list(find()))
    if not found:
        return ran
    cut = threading.Event()
    try:
        left = await asyncio.to_thread(end_marked, find, tell, cut)
    finally:
        cut.set()
    if left:
        pids = ", ".join(str(who.pid) for who in left)
        raise EmpError(f"still running: pid {pids}", hint="somebody starts it again; look for another `emp apply`")
    return sorted({*ran, *(MachineId(one.mark.machine) for one in found if one.mark.machine)})


async def _stop_in_order(layout: Layout, tell: Tell, *, volumes: bool, boxes: bool) -> list[MachineId]:
    plane = plane_of(layout)
    # Or it would start again what we stop.
    tell("stopping the reconciler")
    await plane.silence("reconcile")
    settings = settings_files.known(layout)
    # While the API is there: their jobs go back.
    given_back, rented = await give_back(layout, settings, tell) if boxes else ([], [])
    runtimes = runtimes_of(layout, settings)
    found = await all_instances(runtimes)
    ran = [*given_back, *_running(found)]
    tell_of = {i.host: i.detail for i in found.values() if i.state is InstanceState.UNKNOWN}

    async def stop(runtime: Runtime, machine_id: MachineId) -> None:
        await runtime.stop(machine_id)
        tell(f"{machine_id} stopped")

    # All of them, also those that do not run: a killed supervisord may have left programs behind.
    known = [
        (runtime, machine_id)
        for runtime in runtimes.values()
        for machine_id, instance in (await runtime.instances()).items()
        if instance.state is not InstanceState.UNKNOWN
    ]
    await asyncio.gather(*(stop(*one) for one in known))
    if left_there := await withdraw_all(layout, settings):
        tell(left_there)
    for runtime in runtimes.values():
        for name in await runtime.clear(volumes=volumes):
            tell(f"volume {name} removed")
    tell("stopping the control plane")
    await plane.stop()
    left = _running(await all_instances(runtimes))
    if left or plane.identity() is not None:
        what = ", ".join([*left, *(["the control plane"] if plane.identity() else [])])
        raise EmpError(f"still running: {what}", hint="somebody starts it again; look for another `emp apply`")
    if rented:
        raise EmpError(
            "; ".join(map(str, rented)),
            hint="the rest is down; boxes cost as they run: `emp down` again once it answers, or end them there",
        )
    if tell_of:
        raise Unreachable(
            f"what runs there goes on: {'; '.join(tell_of.values())}", hint="`emp down` again, once it answers"
        )
    return ran


async def still_running(layout: Layout) -> list[str]:
    """What of the fleet in this folder runs now, in words, for who cut its end short."""
    runtimes = runtimes_of(layout, settings_files.known(layout))
    machines = [f"machine {i}" for i in _running(await all_instances(runtimes))]
    parts = [i.name for i in await plane_of(layout).programs() if i.pid]
    plane = [f"the control plane ({', '.join(parts)})"] if parts else []
    marked = {one.mark.machine for one in ownership.look(layout.root).running}
    others = [f"machine {i}" for i in sorted(marked - {""}) if f"machine {i}" not in machines]
    return [*machines, *others, *(plane or (["the control plane"] if "" in marked else []))]


def _running(instances: Mapping[MachineId, Instance]) -> list[MachineId]:
    return [i for i, instance in instances.items() if instance.state is InstanceState.RUNNING]
