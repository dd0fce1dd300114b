"""The machines of a fleet's pools: a template and its members → machines like those that emp.yaml names."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from emp_orch.fleet.model.fleet import Fleet, Machine, MachineId, Member, Pool


def machine_of_member(pool: Pool, member_id: MachineId) -> Machine:
    """The machine that a member of `pool` is."""
    return structs.replace(pool.template, id=member_id, pool=pool.name)


def with_members(fleet: Fleet, members: Iterable[Member]) -> Fleet:
    """`fleet` with its members among its machines, after those of emp.yaml, by id. Who has the id of a machine of
    emp.yaml is left out; who is of a pool that is named no more is a member still, and no machine.
    """
    machines = [m for m in fleet.machines if not m.pool]
    named = {m.id for m in machines}
    known = sorted((m for m in members if m.id not in named), key=lambda m: m.id)
    machines += [machine_of_member(fleet.pools[m.pool], m.id) for m in known if m.pool in fleet.pools]
    return structs.replace(fleet, machines=tuple(machines), members=tuple(known))


def without_members(fleet: Fleet) -> Fleet:
    """As emp.yaml has it: what is stored, and compared with what is to be applied."""
    if not fleet.members:
        return fleet
    return structs.replace(fleet, machines=tuple(m for m in fleet.machines if not m.pool), members=())
