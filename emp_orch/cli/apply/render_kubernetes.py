"""The objects by which a Kubernetes cluster starts the boxes of a pool, from an emp.yaml."""

from __future__ import annotations

from emp_orch.errors import UsageError
from emp_orch.fleet.desired.containers import desired_container
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import Fleet, MachineId, Pool, ReconcileSpec
from emp_orch.fleet.model.pools import JOIN
from emp_orch.render.box import box_of
from emp_orch.render.kubernetes.manifest import render_kubernetes
from emp_orch.render.kubernetes.names import OnCluster


def kubernetes_text(fleet: Fleet, pool: Pool, *, api: str) -> str:
    """The YAML for `pool` of `fleet`, whose boxes reach the API at `api`. Raises UsageError where emp itself starts
    them, or where it picks their GPUs.
    """
    if pool.provider != JOIN:
        raise UsageError(
            f"the boxes of pool {pool.name} are started by its provider, {pool.provider}",
            hint="a pool whose boxes a cluster starts has `provider: join`",
        )
    if pool.template.gpus.ids:
        raise UsageError(
            f"pool {pool.name} names the ids of its GPUs, and a cluster gives out GPUs by number",
            hint="write `gpus: nvidia`",
        )
    machine = machine_of_member(pool, MachineId(f"{pool.name}-0"))
    return render_kubernetes(
        OnCluster(
            fleet=fleet.name,
            pool=pool,
            box=box_of(desired_machine(fleet, machine), desired_container(machine, ())),
            api=api,
            max_unavailable=_at_once(fleet.reconcile),
            downloads=bool(fleet.jobs.inputs and fleet.jobs.inputs.hosts),
        )
    )


def _at_once(said: ReconcileSpec) -> int | str:
    """As a cluster takes it."""
    percent = said.max_unavailable_percent
    return said.max_unavailable if percent is None else f"{percent}%"
