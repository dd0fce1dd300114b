"""Start, stop and list machines: one file per runtime behind one Protocol.

Holds no fleet decisions; stops only what it started, by pid and start time.
"""

from __future__ import annotations

from collections.abc import Mapping

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance, InstanceState
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.layout import Layout
from emp_orch.runtimes.base import Runtime
from emp_orch.runtimes.external.runtime import ExternalRuntime
from emp_orch.runtimes.keys.logins import MachineLogins
from emp_orch.runtimes.process.runtime import ProcessRuntime
from emp_orch.settings import Settings

Runtimes = Mapping[RuntimeKind, Runtime]


def runtimes_of(layout: Layout, settings: Settings | None, logins: MachineLogins | None = None) -> Runtimes:
    """Every runtime this emp has, for the fleet in `layout`. A new runtime is one file and one line here.

    Who starts machines gives their `logins`.
    """
    runtimes: dict[RuntimeKind, Runtime] = {
        RuntimeKind.PROCESS: ProcessRuntime(layout, settings, logins),
        RuntimeKind.EXTERNAL: ExternalRuntime(layout),
    }
    if settings is not None and settings.hosts:
        from emp_orch.runtimes.compose.runtime import ComposeRuntime  # the Docker SDK takes its time to import

        runtimes[RuntimeKind.COMPOSE] = ComposeRuntime(layout, settings, logins)
    return runtimes


_COUNTS = (InstanceState.GONE, InstanceState.UNKNOWN, InstanceState.RUNNING)


async def all_instances(runtimes: Runtimes) -> dict[MachineId, Instance]:
    """Every machine that some runtime knows of. One whose runtime was changed is known to two: what lives counts."""
    found: dict[MachineId, Instance] = {}
    for runtime in runtimes.values():
        for machine_id, instance in (await runtime.instances()).items():
            other = found.get(machine_id)
            if other is None or _COUNTS.index(instance.state) > _COUNTS.index(other.state):
                found[machine_id] = instance
    return found
