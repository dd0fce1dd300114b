"""Which pool is to run which of the jobs that wait: where several can, the cheapest as far as it may grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import floor

from emp_orch.fleet.model.fleet import Pool, PoolName
from emp_orch.fleet.model.pools import Waiting


def jobs_for(pool: Pool, members: int) -> int:
    """How many jobs so many members of a pool are there for."""
    return floor(members * gpus_of(pool) * pool.scale.jobs_per_gpu + 1e-9)


def gpus_of(pool: Pool) -> int:
    """Of one member; one that has none still runs a job at a time."""
    return max(1, pool.template.num_gpus)


def shared(
    waiting: Iterable[Waiting], pools: Mapping[PoolName, Pool], running: Mapping[PoolName, int]
) -> dict[PoolName, int]:
    """How many of the jobs that wait are each pool's. Those that only one can run are given out first; what none has
    room for is the cheapest's. `running`: jobs on each.
    """
    room = {name: max(0, jobs_for(pool, pool.max_size) - running[name]) for name, pool in pools.items()}
    share = dict.fromkeys(pools, 0)
    for group in sorted(waiting, key=lambda w: (len(w.pools), w.pools)):
        able = sorted((n for n in group.pools if n in pools), key=lambda n: (pools[n].cost, n))
        left = group.jobs
        for name in able:
            taken = min(left, room[name])
            share[name] += taken
            room[name] -= taken
            left -= taken
        if able:
            share[able[0]] += left
    return share
