"""`fleet:{name}:pools:courses`: how each pool fared over the last day, for who looks at it. One writer: the leader."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.pools.course import Point, holds_together
from emp_orch.store.fleet import fencing
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, KeyDamaged, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

# Twenty kB a pool.
MAX_COURSES_BYTES = 8 * 1024 * 1024

Courses = dict[PoolName, tuple[Point, ...]]

_WRITE = script("fleet/write")
_decode = decoder(Courses, MAX_COURSES_BYTES)


async def write_courses(r: Client, keys: Keys, mandate: Mandate, courses: Mapping[PoolName, tuple[Point, ...]]) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    text = msgspec.json.encode(courses)
    await fencing.write(r, keys, mandate, _WRITE, to=[keys.pool_courses(mandate.fleet)], args=[text])


async def read_courses(r: Client, keys: Keys, fleet: str) -> Courses:
    """Empty where there are none, or what stands there is none of emp's: the leader writes them anew."""
    try:
        text = await r.getrange(keys.pool_courses(fleet), 0, MAX_COURSES_BYTES)
        found = _decode(text) if text else {}
    except (KeyDamaged, *DAMAGED):
        return {}
    return {name: course for name, course in found.items() if holds_together(course)}
