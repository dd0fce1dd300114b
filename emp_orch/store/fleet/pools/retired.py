"""Pools of an engine that emp.yaml names no more, and that have members still: they go, one by one, as those of any
pool that is to have none. What they are is known from the last generation that named them. Boxes that somebody else
started stay until they are pruned, as machines do. Pools that had another engine before are known in the same way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from msgspec import structs

from emp_orch.errors import Damaged
from emp_orch.fleet.model.fleet import Fleet, Pool, PoolName
from emp_orch.fleet.model.pools import JOIN
from emp_orch.seals import Forged, Seal
from emp_orch.store.fleet.generations import KEPT, Generation, read_generation, read_numbered
from emp_orch.store.fleet.pools.members import Members, Seen, populated
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

# How long after a generation was applied a leader may ask for a box by the one before.
LATE_MS = 60_000


class RetiredPools:
    """Remembers what it found: generations are read once."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._known: dict[tuple[PoolName, int], Pool | None] = {}
        self._read: dict[int, tuple[int, Mapping[PoolName, Pool]] | None] = {}

    async def added(self, generation: Generation, seen: Seen, seal: Seal | None) -> Generation:
        """`generation` with those pools too, of no members at most. Raises what redis-py raises when Redis is away."""
        names = sorted({m.pool for m in seen.members} - generation.fleet.pools.keys())
        if not names:
            return generation
        found = {name: pool for name in names if (pool := await self._last(name, generation, seal)) is not None}
        if not found:
            return generation
        pools = {**generation.fleet.pools, **{n: _empty(p, generation.fleet) for n, p in found.items()}}
        return structs.replace(generation, fleet=structs.replace(generation.fleet, pools=pools))

    async def _last(self, name: PoolName, generation: Generation, seal: Seal | None) -> Pool | None:
        key = (name, generation.number)
        if key not in self._known:
            self._known = {k: p for k, p in self._known.items() if k[1] == generation.number}
            self._known[key] = await self._found(name, generation, seal)
        return self._known[key]

    async def _found(self, name: PoolName, generation: Generation, seal: Seal | None) -> Pool | None:
        async for _, pools in self._before(generation, seal):
            if (pool := pools.get(name)) is not None:
                return None if pool.provider == JOIN else pool
        return None

    async def former(self, generation: Generation, seen: Seen, seal: Seal | None) -> dict[PoolName, tuple[Pool, ...]]:
        """Pools of `generation` as older ones had them, back to when the oldest member of each was asked for: their
        engines may have boxes still. Raises what redis-py raises when Redis is away.
        """
        oldest: dict[PoolName, int] = {}
        for member in seen.members:
            oldest[member.pool] = min(member.born_ms, oldest.get(member.pool, member.born_ms))
        open_ = {n: ms for n, ms in oldest.items() if n in generation.fleet.pools and ms < generation.at_ms + LATE_MS}
        found: dict[PoolName, list[Pool]] = {}
        if open_:
            async for at_ms, pools in self._before(generation, seal):
                for name, pool in pools.items():
                    if name in open_ and pool.provider != JOIN:
                        found.setdefault(name, []).append(pool)
                open_ = {name: ms for name, ms in open_.items() if ms < at_ms + LATE_MS}
                if not open_:
                    break
        return {name: tuple(pools) for name, pools in found.items()}

    async def _before(
        self, generation: Generation, seal: Seal | None
    ) -> AsyncIterator[tuple[int, Mapping[PoolName, Pool]]]:
        """When each generation before was applied, and its pools: the last first."""
        numbers = range(generation.number - 1, max(0, generation.number - KEPT), -1)
        self._read = {n: kept for n, kept in self._read.items() if n in numbers}
        for number in numbers:
            if number not in self._read:
                try:
                    before = await read_numbered(self._r, self._keys, generation.fleet.name, number, seal)
                except (Damaged, Forged):
                    before = None
                self._read[number] = None if before is None else (before.at_ms, before.fleet.pools)
            if (kept := self._read[number]) is not None:
                yield kept


async def read_with_members(r: Client, keys: Keys, fleet: str, seal: Seal | None = None) -> Generation | None:
    """As `read_generation`, with the members of its pools, and of those that are no more, among its machines."""
    generation = await read_generation(r, keys, fleet, seal)
    return None if generation is None else await members_added(r, keys, generation, seal)


async def members_added(r: Client, keys: Keys, generation: Generation, seal: Seal | None) -> Generation:
    """`generation` with the members of its pools as they are now, and of those that are no more."""
    seen = await Members(r, keys, generation.fleet.name, lambda: seal).read()
    return populated(await RetiredPools(r, keys).added(generation, seen, seal), seen)


def _empty(pool: Pool, fleet: Fleet) -> Pool:
    """`pool` of no members, which run what `fleet` still knows. It stands nowhere in emp.yaml."""
    services = tuple(s for s in pool.template.services if s in fleet.services)
    template = structs.replace(pool.template, services=services)
    return structs.replace(pool, min_size=0, max_size=0, template=template, origin="")
