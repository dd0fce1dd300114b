"""Where each job stands, looked at as a whole: a Redis that evicts, or a person, may have removed one of the keys."""

from __future__ import annotations

from typing import Any, cast

from msgspec import Struct

from emp_orch.jobs.document.states import ENDED
from emp_orch.jobs.matching.requirements import canonical
from emp_orch.store.queue.codec import JobDamaged, stored
from emp_orch.store.queue.scripts import Scripts
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class Taken(Struct, frozen=True, kw_only=True):
    """How many jobs there are beyond the places taken, and which lanes hold jobs that no worker looks at."""

    missing: int
    blind: tuple[str, ...]


class Positions:
    """Of one queue. Raises what redis-py raises when Redis is away."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._scripts = Scripts(r, keys)

    async def look(self) -> Taken:
        """By numbers alone: it costs what there are lanes, not jobs."""
        known, placed, blind = cast(tuple[int, int, list[str]], await self._scripts.places(*sorted(ENDED)))
        return Taken(missing=known - placed, blind=tuple(blind))

    async def without_record(self, most: int) -> tuple[str, ...]:
        """Some of the jobs whose records are gone, while a lane or a lease still names them."""
        return tuple(await self._scripts.without_record(most))

    async def match_anew(self) -> None:
        """Let every worker find out again which lanes it serves."""
        await self._scripts.match_anew()

    async def put_back(self, cursor: str, count: int) -> tuple[str, list[str]]:
        """Look at about `count` jobs; where to go on ("0" at the end), and the ids of those that were put back."""
        after, *rows = cast(list[Any], await self._scripts.strays(cursor, count))
        done = []
        for job_id, text, needs in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
            try:
                asked = canonical(stored(job_id, text).requirements(needs or None))
            except (JobDamaged, ValueError):
                continue
            if await self._scripts.put_back(job_id, asked):
                done.append(job_id)
        return str(after), done
