"""Which pool is to run which of the jobs that wait: where several can, the cheapest as far as it may grow.

One that gets no boxes wants what it wanted still, and others are to run it meanwhile: so it has its share back as its
boxes come. One that a person holds at a size has what so many members are there for, and others run the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor

from msgspec import Struct

from emp_orch.fleet.model.fleet import Pool, PoolName
from emp_orch.fleet.model.pools import Waiting


class Shares(Struct, frozen=True, kw_only=True):
    """`jobs` of each pool, with those that it takes from others; `handed`: of each that gets no boxes or is held, how
    many of its jobs which other takes.
    """

    jobs: dict[PoolName, int]
    handed: dict[PoolName, dict[PoolName, int]]

    def taken(self, name: PoolName) -> dict[PoolName, int]:
        """How many jobs of which other pools `name` takes."""
        return {giver: takers[name] for giver, takers in self.handed.items() if name in takers}


def jobs_for(pool: Pool, members: int) -> int:
    """How many jobs so many members of a pool are there for."""
    return floor(members * gpus_of(pool) * pool.scale.jobs_per_gpu + 1e-9)


def gpus_of(pool: Pool) -> int:
    """Of one member; one that has none still runs a job at a time."""
    return max(1, pool.template.num_gpus)


def shared(
    waiting: Iterable[Waiting],
    pools: Mapping[PoolName, Pool],
    running: Mapping[PoolName, int],
    starved: Mapping[PoolName, int],
    held: Mapping[PoolName, int] = {},
) -> Shares:
    """How many of the jobs that wait are each pool's. Those that only one can run are given out first; what none has
    room for is the cheapest's. `running`: jobs on each. `starved`: pools that get no boxes, and how many members each
    has; `held`: those that are to have so many and no more. What these are not there for is also the next one's, and
    one that is held takes nothing from others beyond that.
    """
    room = {name: max(0, jobs_for(pool, pool.max_size) - running[name]) for name, pool in pools.items()}
    has = {n: min(some[n] for some in (starved, held) if n in some) for n in starved.keys() | held.keys()}
    here = {name: max(0, jobs_for(pools[name], members) - running[name]) for name, members in has.items()}
    shares = Shares(jobs=dict.fromkeys(pools, 0), handed={})
    for group in sorted(waiting, key=lambda w: (len(w.pools), w.pools)):
        able = sorted((n for n in group.pools if n in pools), key=lambda n: (pools[n].cost, n))
        left = group.jobs
        lent: dict[PoolName, int] = {}
        for name in able:
            taken = min(left, room[name])
            left -= taken
            may = min(room[name], here[name]) if name in held else room[name]
            taken += _take(name, max(0, min(may - taken, sum(lent.values()))), lent, shares.handed)
            shares.jobs[name] += taken
            room[name] -= taken
            if name in here:
                at_hand = min(taken, here[name])
                here[name] -= at_hand
                lent[name] = taken - at_hand
        if able:
            shares.jobs[able[0]] += left
    return shares


def _take(name: PoolName, count: int, lent: dict[PoolName, int], handed: dict[PoolName, dict[PoolName, int]]) -> int:
    """`count` jobs of those that are `lent` are also of `name`, those of the cheapest first."""
    left = count
    for giver in lent:
        part = min(left, lent[giver])
        if part:
            lent[giver] -= part
            left -= part
            takers = handed.setdefault(giver, {})
            takers[name] = takers.get(name, 0) + part
    return count
