"""Keeps how each pool fares, while this leader leads: some ten seconds apart, and only where something changed."""

from __future__ import annotations

from collections.abc import Mapping

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.pools.course import Point, noted
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.pools.courses import Courses, read_courses, write_courses
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class Past:
    """What was written last is known, and read only where another led meanwhile."""

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._epoch: int | None = None
        self._courses: Courses = {}
        self._at_ms = 0

    def lost(self) -> None:
        self._epoch = None

    async def note(self, pools: Mapping[PoolName, PoolStatus], now_ms: int, mandate: Mandate) -> int:
        """When, by Redis TIME in ms, what stands in Redis was last written; 0: this leader wrote none."""
        if self._epoch != mandate.epoch:
            self._courses = await read_courses(self._r, self._keys, self._fleet)
            self._epoch, self._at_ms = mandate.epoch, max((c[-1].at_ms for c in self._courses.values() if c), default=0)
        known = self._courses
        after = {name: noted(known.get(name, ()), _point(pool, now_ms)) for name, pool in pools.items()}
        if after.keys() != known.keys() or any(after[name] is not known[name] for name in after):
            self._epoch = None  # until it is known to stand there
            await write_courses(self._r, self._keys, mandate, after)
            self._epoch, self._courses, self._at_ms = mandate.epoch, after, now_ms
        return self._at_ms


def _point(pool: PoolStatus, now_ms: int) -> Point:
    return Point(now_ms, pool.waiting, pool.running, pool.there, pool.wanted)
