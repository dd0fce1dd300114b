"""Pools of an engine that emp.yaml names no more, and that have members still: they go, one by one, as those of any
pool that is to have none. What they are is known from the last generation that named them. Boxes that somebody else
started stay until they are pruned, as machines do.
"""

from __future__ import annotations

from msgspec import structs

from emp_orch.errors import Damaged
from emp_orch.fleet.model.fleet import Fleet, Pool, PoolName
from emp_orch.fleet.model.pools import JOIN
from emp_orch.seals import Forged, Seal
from emp_orch.store.fleet.generations import KEPT, Generation, read_numbered
from emp_orch.store.fleet.pools.members import Seen
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class RetiredPools:
    """Remembers what it found: generations are read once."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._known: dict[tuple[PoolName, int], Pool | None] = {}

    async def added(self, generation: Generation, seen: Seen, seal: Seal) -> Generation:
        """`generation` with those pools too, of no members at most. Raises what redis-py raises when Redis is away."""
        names = sorted({m.pool for m in seen.members} - generation.fleet.pools.keys())
        if not names:
            return generation
        found = {name: pool for name in names if (pool := await self._last(name, generation, seal)) is not None}
        if not found:
            return generation
        pools = {**generation.fleet.pools, **{n: _empty(p, generation.fleet) for n, p in found.items()}}
        return structs.replace(generation, fleet=structs.replace(generation.fleet, pools=pools))

    async def _last(self, name: PoolName, generation: Generation, seal: Seal) -> Pool | None:
        key = (name, generation.number)
        if key not in self._known:
            self._known = {k: p for k, p in self._known.items() if k[1] == generation.number}
            self._known[key] = await self._found(name, generation, seal)
        return self._known[key]

    async def _found(self, name: PoolName, generation: Generation, seal: Seal) -> Pool | None:
        for number in range(generation.number - 1, max(0, generation.number - KEPT), -1):
            try:
                before = await read_numbered(self._r, self._keys, generation.fleet.name, number, seal)
            except (Damaged, Forged):
                continue
            if before is not None and (pool := before.fleet.pools.get(name)) is not None:
                return None if pool.provider == JOIN else pool
        return None


def _empty(pool: Pool, fleet: Fleet) -> Pool:
    """`pool` of no members, which run what `fleet` still knows."""
    services = tuple(s for s in pool.template.services if s in fleet.services)
    return structs.replace(pool, min_size=0, max_size=0, template=structs.replace(pool.template, services=services))
