"""Puts jobs back that stand nowhere: one key that Redis evicted would leave all of a lane's jobs pending for ever."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from emp_orch.fleet.journal.entries import Entry
from emp_orch.store.queue.upkeep.positions import Positions
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

EVERY_MS = 10_000
# Lanes that no worker looks at although some wait: perhaps the only one that serves them is away. So often, then.
BLIND_AGAIN_MS = 600_000
# Jobs in one script, and in one tick.
AT_ONCE, A_TICK = 250, 5_000
SHOWN = 5
HINT = "look whether Redis evicts (maxmemory-policy), or who deletes keys there"


class StrayJobs:
    """Counts places each ten seconds. Only where some are missing it looks at the jobs, a part of them in each tick."""

    def __init__(self, r: Client, keys: Keys, write: Callable[[list[Entry]], Awaitable[None]]) -> None:
        self._places = Positions(r, keys)
        self._write = write
        self._next_ms = 0
        self._cursor: str | None = None
        self._found: list[str] = []
        self._hopeless = 0
        self._blind: tuple[tuple[str, ...], int] = ((), 0)

    async def tend(self, now_ms: int) -> None:
        if self._cursor is None:
            if now_ms < self._next_ms:
                return
            self._next_ms = now_ms + EVERY_MS
            taken = await self._places.look()
            await self._see(taken.blind, now_ms)
            if taken.missing == 0 or taken.missing == self._hopeless:
                return
            self._cursor = "0"
        for _ in range(A_TICK // AT_ONCE):
            self._cursor, ids = await self._places.put_back(self._cursor, AT_ONCE)
            self._found += ids
            if self._cursor == "0":
                await self._done()
                return

    async def _see(self, blind: tuple[str, ...], now_ms: int) -> None:
        known, at_ms = self._blind
        if not blind or (blind == known and now_ms - at_ms < BLIND_AGAIN_MS):
            return
        self._blind = (blind, now_ms)
        await self._places.match_anew()

    async def _done(self) -> None:
        """All were looked at. What is missing still cannot be put back: damaged records, or places of no job."""
        found, self._found, self._cursor = self._found, [], None
        taken = await self._places.look()
        self._hopeless = taken.missing
        if not found:
            return
        jobs = "1 job" if len(found) == 1 else f"{len(found)} jobs"
        some = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
        reason = f"{jobs} stood in no lane: their keys in Redis were removed ({some})"
        await self._write([("jobs_put_back", {"jobs": len(found), "reason": reason, "hint": HINT})])
