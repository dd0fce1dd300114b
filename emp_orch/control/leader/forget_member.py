"""Forgets a member of a pool that is gone: its entry, and with that its tokens; its login; all that was said of it."""

from __future__ import annotations

import logging
from typing import Any

from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.members import Gone, how_gone, pool_of
from emp_orch.fleet.model.fleet import Member
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.plan.operations import Operation
from emp_orch.store.acl.users import withdraw
from emp_orch.store.fleet import configs, journal
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.overrides import lift_overrides
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports import reports

log = logging.getLogger("reconcile")

FORGOTTEN = "member_forgotten"


async def forget_member(
    r: Client, keys: Keys, members: Members, operation: Operation, desired: Desired, mandate: Mandate
) -> None:
    """Its entry first: whoever comes back from then on is another one, and what a former one left is no member's, which
    the next round sees. One that came back, or was changed, since `desired` was read stays as it is.
    """
    machine_id = operation.machine_id
    member = desired.members.get(machine_id) or desired.former.get(machine_id)
    if member is not None:
        if not await members.remove(member):
            log.info("%s is not as it was any more, and stays a member of pool %s", machine_id, member.pool)
            return
        asked = operation.seen_ms is None or machine_id in desired.former
        await journal.write(r, keys, mandate, [(FORGOTTEN, _told(member, operation, how_gone(member, asked=asked)))])
    await withdraw(r, keys, mandate.fleet, machine_id)
    await lift_overrides(r, keys, mandate.fleet, scope=machine_id)
    await configs.remove_machine_keys(r, keys, mandate, machine_id)
    await _forget_reports(r, keys, operation, desired)


def _told(member: Member, operation: Operation, how: Gone) -> dict[str, Any]:
    return {
        "pool": member.pool,
        "machine_id": member.id,
        "how": how,
        "why": operation.cause,
        "name": member.name,
        "born_ms": member.born_ms,
        "joined_ms": member.joined_ms,
    }


async def _forget_reports(r: Client, keys: Keys, operation: Operation, desired: Desired) -> None:
    """Those of the machine and of its workers; not what was heard after the operation was planned. All reports are not
    read for that, since many members may go at once: a worker that nobody knows of is drift of its own.
    """
    machine_id, pool = operation.machine_id, pool_of(operation.machine_id, desired.pools)
    machine = desired.machines.get(machine_id)
    slots = machine.num_gpus if machine else desired.pools[pool].template.num_gpus if pool else 0
    for slot in range(slots):
        await reports.forget_worker(r, keys, worker_id(machine_id, slot), seen_ms=operation.seen_ms or None)
    await reports.forget_machine(r, keys, machine_id, seen_ms=operation.seen_ms or None)
