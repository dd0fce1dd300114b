"""The jobs that wait for pools: of each lane, which pools have workers that could ever serve it, and how many wait."""

from __future__ import annotations

from collections import Counter

from emp_orch.fleet.desired.workers import workers_of_pool
from emp_orch.fleet.model.fleet import Fleet, Pool, PoolName
from emp_orch.fleet.model.pools import Waiting
from emp_orch.jobs.matching.workable import DesiredWorker, Unworkable, judge_all
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

Pools = tuple[PoolName, ...]


class Backlogs:
    """Remembers which lane is whose: judged anew only when lanes or pools are others."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._queue = Queue(r, keys)
        self._known: tuple[str, dict[PoolName, Pool]] | None = None
        self._pools_of: dict[str, Pools] = {}

    async def read(self, fleet: Fleet) -> tuple[Waiting, ...]:
        """Raises what redis-py raises when Redis is away."""
        version = await self._queue.lanes_version()
        if self._known is None or self._known[0] != version or self._known[1] != fleet.pools:
            self._pools_of = await self._judged(fleet)
            self._known = (version, fleet.pools)
        counts: Counter[Pools] = Counter()
        if self._pools_of:
            for sig, jobs in (await self._queue.waiting(tuple(self._pools_of))).items():
                counts[self._pools_of[sig]] += jobs
        return tuple(Waiting(pools=pools, jobs=n) for pools, n in sorted(counts.items()) if n)

    async def _judged(self, fleet: Fleet) -> dict[str, Pools]:
        lanes = await self._queue.requirements()
        able: dict[str, list[PoolName]] = {}
        for name in sorted(fleet.pools):
            for sig, verdict in judge_all(lanes, class_of(fleet, fleet.pools[name])).items():
                if not isinstance(verdict, Unworkable):
                    able.setdefault(sig, []).append(name)
        return {sig: tuple(names) for sig, names in able.items()}


def class_of(fleet: Fleet, pool: Pool) -> tuple[DesiredWorker, ...]:
    """The workers that a member of `pool` will have, as far as emp.yaml tells."""
    known = workers_of_pool(fleet, pool)
    return tuple(DesiredWorker(worker_id=w.worker_id, machine_id=w.machine_id, known=w.capabilities) for w in known)
