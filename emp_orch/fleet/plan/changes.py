"""What one generation changed against another, in a few words for each thing."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from emp_orch.fleet.desired.containers import image_moved
from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.model.fleet import Fleet, Machine, Service, ServiceName
from emp_orch.fleet.plan.operations import MachineChange, compare
from emp_orch.fleet.plan.pool_changes import pool_changes

# Parts of a fleet beside its machines and services, as emp.yaml calls them.
_PARTS = ("redis", "api", "monitor", "control", "hosts", "jobs", "reconcile", "worker_package")
PACKAGE_PINNED = "~ worker_package"


def changed(before: Fleet | None, after: Fleet) -> tuple[str, ...]:
    """What `after` changed: machines in its order, then those that went, pools, services, other parts of emp.yaml.

    Where things stand in the file does not count. `before` None: there was nothing.
    """
    pools = pool_changes(before, after)
    if before is None:
        return (*(f"+ {m.id}" for m in after.machines), *pools)
    return (*_machines(before, after), *pools, *_services(before, after), *_parts(before, after))


def _machines(before: Fleet, after: Fleet) -> list[str]:
    old = {m.id: m for m in before.machines}
    new = {m.id for m in after.machines}
    same = {n for n, s in after.services.items() if n in before.services and _alike(before.services[n], s)}
    alike = before.allotment == after.allotment and before.images == after.images
    told: list[str] = []
    for machine in after.machines:
        former = old.get(machine.id)
        if former is None:
            told.append(f"+ {machine.id}")
        # Comparing what a machine's programs are made of is much cheaper than making them.
        elif not (
            _alike(former, machine) and before.jobs == after.jobs and alike and same.issuperset(machine.services)
        ):
            was, becomes = desired_machine(before, former), desired_machine(after, machine)
            if config_hash(was) != config_hash(becomes) or image_moved(was.container, becomes.container):
                told.append(f"~ {machine.id}: {_how(compare(was, becomes))}")
    return told + [f"- {machine_id}" for machine_id in old if machine_id not in new]


def _alike(a: Machine | Service, b: Machine | Service) -> bool:
    """Whether both ask for the same, wherever they stand in the file."""
    return a == b or structs.replace(a, origin="") == structs.replace(b, origin="")


def _how(change: MachineChange) -> str:
    """`num_gpus 1 → 2`, or which programs."""
    if change.why.startswith(("num_gpus", "image ")):
        return change.why
    signs = (("+", change.added), ("-", change.removed), ("~", change.changed))
    told = [
        f"{sign} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for sign, names in signs
        if names
    ]
    return ", ".join(told) or change.why


def _services(before: Fleet, after: Fleet) -> list[str]:
    """Services that no machine runs show nowhere else."""
    used = {name for fleet in (before, after) for m in _all_machines(fleet) for name in m.services}

    def idle(fleet: Fleet) -> dict[ServiceName, Service]:
        return {n: structs.replace(s, origin="") for n, s in fleet.services.items() if n not in used}

    old, new = idle(before), idle(after)
    return [
        *(f"+ service {n}" for n in new if n not in old),
        *(f"~ service {n}" for n in new if n in old and old[n] != new[n]),
        *(f"- service {n}" for n in old if n not in new),
    ]


def _all_machines(fleet: Fleet) -> Iterator[Machine]:
    yield from fleet.machines
    yield from (pool.template for pool in fleet.pools.values())


def _parts(before: Fleet, after: Fleet) -> list[str]:
    """`redis` without its URLs, which no stored generation holds."""

    def part(fleet: Fleet, name: str) -> object:
        return structs.replace(fleet.redis, url="", machine_url="") if name == "redis" else getattr(fleet, name)

    return [f"~ {name}" for name in _PARTS if part(before, name) != part(after, name)]
