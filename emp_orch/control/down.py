"""`emp down`: stop what `apply` started, machines first, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from emp_orch.control.execute import REMOVED_DRAIN_S
from emp_orch.control.plane import ControlPlane
from emp_orch.errors import EmpError
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import InstanceState
from emp_orch.layout import Layout
from emp_orch.runtimes.process import ProcessRuntime
from emp_orch.settings import Settings


async def bring_down(layout: Layout, settings: Settings, tell: Callable[[str], None]) -> list[MachineId]:
    """Stop every machine of this fleet's folder and its control plane; returns the machines that ran."""
    plane = ControlPlane(layout)
    if plane.identity() is not None:
        # Or it would start again what we stop.
        tell("stopping the reconciler")
        with suppress(EmpError):
            await plane.supervisor.stop("reconcile")
    runtime = ProcessRuntime(layout, settings)
    instances = await runtime.instances()
    ran = [i for i, instance in instances.items() if instance.state is InstanceState.RUNNING]

    async def stop(machine_id: MachineId) -> None:
        await runtime.stop(machine_id, timeout_s=REMOVED_DRAIN_S)
        tell(f"{machine_id} stopped")

    # All of them, also those that do not run: a killed supervisord may have left programs behind.
    await asyncio.gather(*(stop(machine_id) for machine_id in instances))
    tell("stopping the control plane")
    await plane.stop()
    return ran
