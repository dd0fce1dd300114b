"""What changed since the last look, at the price of the change; everything each minute, and after every doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from emp_orch.api.feed.observed import ObservedState, Told, courses_of
from emp_orch.api.feed.snapshot import Seen, seen_whole
from emp_orch.api.state import StateReader
from emp_orch.api.views.jobs import JobsView
from emp_orch.api.views.pools import pool_views
from emp_orch.api.views.state import fleet_view, reconciler_view
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.changes import FULL_EVERY_S, changes_since, current_seq
from emp_orch.store.reports.reports import read_some

# Jobs are read again when an event speaks of one, and after this time: leases end without a word.
JOBS_EVERY_S = 3.0


class Follower:
    """Looks again and again. A look that fails leaves everything as it was."""

    def __init__(self, r: Client, keys: Keys, reader: StateReader, jobs_changed: Callable[[], bool]) -> None:
        self._r = r
        self._keys = keys
        self._reader = reader
        self._jobs_changed = jobs_changed
        self._observed: ObservedState | None = None
        self._seq = 0
        self._whole_at_s = 0.0
        self._jobs_at_s = 0.0
        self.whole_took_s = 0.0

    def lost(self) -> None:
        """What came meanwhile was missed: the next look reads all."""
        self._observed = None

    async def look(self, *, whole: bool = False) -> Seen:
        """What differs from the last look, and perhaps more. Raises what redis-py raises when Redis is away."""
        known = self._observed
        now_s = monotonic()
        # Of all that was read within a few times what it took to read it, nothing is read again.
        if whole and now_s - self._whole_at_s < 10 * self.whole_took_s:
            whole = False
        if known is None or whole or now_s - self._whole_at_s >= FULL_EVERY_S:
            return await self._whole()
        fleet = self._reader.fleet
        changes, (mark, members), status_text, overrides, jobs = await asyncio.gather(
            changes_since(self._r, self._keys, self._seq, stale_after_ms=int(known.stale_ms)),
            self._reader.marks(known.number),
            self._reader.status_text(),
            self._reader.overrides(),
            self._jobs(now_s),
        )
        if not changes.whole_since(self._seq) or mark != known.mark:
            return await self._whole()
        machines, workers = known.asked(changes)
        told = known.populate(await self._reader.members(known.members)) if members != known.members.mark else Told()
        machines, workers = machines | told.machines, workers | told.workers
        reports = await read_some(self._r, self._keys, changes.now_ms, sorted(machines), sorted(workers))
        status = known.status if status_text == known.status_text else self._reader.decoded(status_text)
        seen = known.update(changes, machines, workers, reports)
        seen.desired, seen.members = told.desired, told.members
        seen.drift, other = known.tell_status(status_text, status)
        seen.pools = pool_views(known.generation, status)
        lived = known.courses_ms != courses_of(status)
        if lived:
            seen.points = known.tell_points(await self._reader.points(status), courses_of(status))
        whole_ones = {"pools": True, "drift": other, "active": jobs is not None, "points": lived}
        seen.whole = frozenset(name for name, is_whole in whole_ones.items() if is_whole)
        if jobs is not None:
            seen.counts, seen.active = jobs.counts, {j.job_id: j for j in jobs.active}
            self._jobs_at_s = now_s
        reconciler, refuses = reconciler_view(status, changes.now_ms), self._reader.refuses
        seen.fleet = fleet_view(fleet, known.generation, (), status, reconciler, overrides, refuses)
        seen.system_stats = self._reader.stats_view(
            known.machines.by_status, known.workers.by_status, len(known.items), len(known.malformed), reconciler
        )
        self._seq = changes.seq
        return seen

    async def _whole(self) -> Seen:
        self._observed = None
        began_s = monotonic()
        self._jobs_changed()
        seq = await current_seq(self._r, self._keys)
        found = await self._reader.look()
        number = found.state.fleet.generation
        mark, _ = await self._reader.marks(number)
        # Of a generation that came meanwhile nothing is known: the next look reads all again.
        self._observed = ObservedState(found, mark if mark.startswith(f"{number} ") else "")
        self._seq = seq
        self._whole_at_s = self._jobs_at_s = monotonic()
        self.whole_took_s = self._whole_at_s - began_s
        return seen_whole(found.state)

    async def _jobs(self, now_s: float) -> JobsView | None:
        """None: as they were."""
        if not self._jobs_changed() and now_s - self._jobs_at_s < JOBS_EVERY_S:
            return None
        self._jobs_at_s = 0.0  # until it is noted
        return await self._reader.jobs()
