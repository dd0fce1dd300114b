"""`emp down`: stop what `apply` started, machines first, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from emp_orch import settings as settings_files
from emp_orch.control.container_plane import plane_of
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import Instance, InstanceState
from emp_orch.layout import Layout
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.runtimes.base import Runtime


async def bring_down(layout: Layout, tell: Callable[[str], None]) -> list[MachineId]:
    """Stop every machine of this fleet's folder and its control plane; returns the machines that ran.

    Raises EmpError when something runs on all the same.
    """
    plane = plane_of(layout)
    # Or it would start again what we stop.
    tell("stopping the reconciler")
    await plane.silence("reconcile")
    runtimes = runtimes_of(layout, settings_files.known(layout))
    found = await all_instances(runtimes)
    ran = _running(found)
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
    for runtime in runtimes.values():
        await runtime.clear()
    tell("stopping the control plane")
    await plane.stop()
    left = _running(await all_instances(runtimes))
    if left or plane.identity() is not None:
        what = ", ".join([*left, *(["the control plane"] if plane.identity() else [])])
        raise EmpError(f"still running: {what}", hint="somebody starts it again; look for another `emp apply`")
    if tell_of:
        raise Unreachable(
            f"what runs there goes on: {'; '.join(tell_of.values())}", hint="`emp down` again, once it answers"
        )
    return ran


def _running(instances: Mapping[MachineId, Instance]) -> list[MachineId]:
    return [i for i, instance in instances.items() if instance.state is InstanceState.RUNNING]
