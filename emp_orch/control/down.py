"""`emp down`: stop what `apply` started, machines first, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from emp_orch.control.container_plane import plane_of
from emp_orch.errors import EmpError
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import InstanceState
from emp_orch.layout import Layout
from emp_orch.runtimes.base import Runtime
from emp_orch.runtimes.process import ProcessRuntime


async def bring_down(layout: Layout, tell: Callable[[str], None]) -> list[MachineId]:
    """Stop every machine of this fleet's folder and its control plane; returns the machines that ran.

    Raises EmpError when something runs on all the same.
    """
    plane = plane_of(layout)
    # Or it would start again what we stop.
    tell("stopping the reconciler")
    await plane.silence("reconcile")
    runtime = ProcessRuntime(layout, None)
    ran = await _running(runtime)

    async def stop(machine_id: MachineId) -> None:
        await runtime.stop(machine_id)
        tell(f"{machine_id} stopped")

    # All of them, also those that do not run: a killed supervisord may have left programs behind.
    await asyncio.gather(*(stop(machine_id) for machine_id in await runtime.instances()))
    tell("stopping the control plane")
    await plane.stop()
    left = await _running(runtime)
    if left or plane.identity() is not None:
        what = ", ".join([*left, *(["the control plane"] if plane.identity() else [])])
        raise EmpError(f"still running: {what}", hint="somebody starts it again; look for another `emp apply`")
    return ran


async def _running(runtime: Runtime) -> list[MachineId]:
    return [i for i, instance in (await runtime.instances()).items() if instance.state is InstanceState.RUNNING]
