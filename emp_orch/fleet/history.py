"""What one generation changed against another, in a few words for each thing."""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.desired import desired_machine
from emp_orch.fleet.model import Fleet, Machine, Service, ServiceName
from emp_orch.fleet.plan import MachineChange, compare

# Parts of a fleet beside its machines and services, as emp.yaml calls them.
_PARTS = ("redis", "api", "monitor", "jobs", "reconcile")


def changed(before: Fleet | None, after: Fleet) -> tuple[str, ...]:
    """What `after` changed: machines in its order, then those that went, services, other parts of emp.yaml.

    Where things stand in the file does not count. `before` None: there was nothing.
    """
    if before is None:
        return tuple(f"+ {m.id}" for m in after.machines)
    return (*_machines(before, after), *_services(before, after), *_parts(before, after))


def _machines(before: Fleet, after: Fleet) -> list[str]:
    old = {m.id: m for m in before.machines}
    new = {m.id for m in after.machines}
    told: list[str] = []
    for machine in after.machines:
        if machine.id not in old:
            told.append(f"+ {machine.id}")
        elif _asked(before, old[machine.id]) != _asked(after, machine):
            change = compare(desired_machine(before, old[machine.id]), desired_machine(after, machine))
            told.append(f"~ {machine.id}: {_how(change)}")
    return told + [f"- {machine_id}" for machine_id in old if machine_id not in new]


def _asked(fleet: Fleet, machine: Machine) -> tuple[Machine, list[Service], object]:
    """All that what a machine runs is made of: comparing it is much cheaper than making it."""
    services = [structs.replace(fleet.services[name], origin="") for name in machine.services]
    return structs.replace(machine, origin=""), services, fleet.jobs


def _how(change: MachineChange) -> str:
    """`num_gpus 1 → 2`, or which programs."""
    if change.why.startswith("num_gpus"):
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
    used = {name for fleet in (before, after) for m in fleet.machines for name in m.services}

    def idle(fleet: Fleet) -> dict[ServiceName, Service]:
        return {n: structs.replace(s, origin="") for n, s in fleet.services.items() if n not in used}

    old, new = idle(before), idle(after)
    return [
        *(f"+ service {n}" for n in new if n not in old),
        *(f"~ service {n}" for n in new if n in old and old[n] != new[n]),
        *(f"- service {n}" for n in old if n not in new),
    ]


def _parts(before: Fleet, after: Fleet) -> list[str]:
    """`redis` without its URLs, which no stored generation holds."""

    def part(fleet: Fleet, name: str) -> object:
        return structs.replace(fleet.redis, url="", machine_url="") if name == "redis" else getattr(fleet, name)

    return [f"~ {name}" for name in _PARTS if part(before, name) != part(after, name)]
