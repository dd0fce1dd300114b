"""Draws the fleet's key anew: what was sealed by the old one is void, and what still counts is sealed by the new one.

The reconciler then hands every machine its new key (key_handover.py); nothing is restarted.
"""

from __future__ import annotations

from msgspec import Struct

from emp_orch import settings as settings_files
from emp_orch.control.host import generation as generations
from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet.generations import list_generations, restore_all
from emp_orch.store.fleet.overrides import UNKNOWN, put_override, read_overrides
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys


class Rotated(Struct, frozen=True, kw_only=True):
    """`key`: the new one's name. How many `generations` can be gone back to, `overrides` stand, `machines` get keys."""

    key: str
    generations: int
    overrides: int
    machines: int


async def rotate(layout: Layout) -> Rotated:
    """Raises UsageError where nothing was applied, Unreachable, EmpError."""
    settings = settings_files.load(layout)
    keys, fleet, signing = Keys(settings.prefix), settings.fleet, SigningKey(layout, settings.fleet)
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        current = await generations.in_force(r, keys, layout, fleet)
        if current is None:
            raise EmpError(f"fleet {fleet} has no generation yet", hint="run `emp apply`")
        old = signing.known()
        kept = await list_generations(r, keys, fleet, seal=old)
        members = (await Members(r, keys, fleet, signing.known).read()).members
        orders = [o for o in await read_overrides(r, keys, fleet, old) if o.by != UNKNOWN]
        signing.rotate()
        new = signing.control()
        # First: until then they are members to nobody but who knew them before.
        await Members(r, keys, fleet, signing.control).seal_anew(members)
        await restore_all(r, keys, kept or [current], new)
        for order in orders:
            await put_override(r, keys, fleet, order, new)
    machines = len(current.fleet.machines) + sum(m.pool in current.fleet.pools for m in members)
    return Rotated(key=new.name, generations=len(kept), overrides=len(orders), machines=machines)
