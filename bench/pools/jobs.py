"""Jobs over HTTP, evenly, and what becomes of each by the fleet's own events and records."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter

import aiohttp

from bench.pools.fleets import SERVICE
from bench.pools.plan import Plan
from bench.reconcile.children import Failed
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.reads import JobReads
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger(__name__)

# Between two lists that are submitted.
EVERY_S = 0.25
# After the last: the longest job, and a lease of one whose member vanished, twice.
ENDS = frozenset(f"job_{status}" for status in ("completed", "failed", "cancelled", "timeout"))
COMPLETED, REQUEUED = "job_completed", "job_requeued"


class Jobs:
    """Those of one fleet: `submitted` by id, and how often each ended, or went back, by the events."""

    def __init__(self, api: str, plan: Plan, r: Client, keys: Keys) -> None:
        self._api = api
        self._plan = plan
        self._r, self._keys = r, keys
        self._events = Events(r, keys)
        self._chance = random.Random(19)
        self.submitted: dict[str, float] = {}
        self.ended: Counter[str] = Counter()
        self.requeued: Counter[str] = Counter()
        self.badly: Counter[str] = Counter()
        self.missed = 0

    async def follow(self) -> None:
        """Count for ever what the events say."""
        after, oldest = await self._events.latest_id(), ""
        while True:
            try:
                batch = await self._events.since(after, count=2_000, block_ms=1_000)
                oldest = await self._events.oldest_id() if batch else oldest
            except TRANSIENT as e:
                log.warning("events cannot be read: %s", e or type(e).__name__)
                await asyncio.sleep(EVERY_S)
                continue
            if not batch:
                continue
            if oldest > batch[0].id:
                self.missed += 1  # cut before they were read
            after = batch[-1].id
            for event in batch:
                if event.type in ENDS:
                    self.ended[str(event.data["job_id"])] += 1
                    if event.type != COMPLETED:
                        self.badly[event.type] += 1
                elif event.type == REQUEUED:
                    self.requeued[str(event.data["job_id"])] += 1
            await asyncio.sleep(EVERY_S)

    async def submit(self, seconds: float) -> None:
        """As many as the plan has a second, for so long; each runs for its own time."""
        count = round(self._plan.per_s * seconds)
        began, sent = time.monotonic(), 0
        async with aiohttp.ClientSession() as session:
            while sent < count:
                due = min(count, round((time.monotonic() - began + EVERY_S) * self._plan.per_s))
                if due > sent:
                    await self._post(session, due - sent)
                    sent = due
                await asyncio.sleep(EVERY_S)

    async def _post(self, session: aiohttp.ClientSession, count: int) -> None:
        made = []
        for _ in range(count):
            job_id = f"j{len(self.submitted):06d}"
            self.submitted[job_id] = time.monotonic()
            payload = {"seconds": round(self._chance.uniform(*self._plan.job_s), 2)}
            made.append({"service": SERVICE, "id": job_id, "payload": payload})
        async with session.post(f"{self._api}/api/jobs", json=made) as answer:
            if answer.status >= 300:
                raise Failed(f"POST /api/jobs says {answer.status}: {(await answer.text())[:300]}")

    async def all_ended(self, within_s: float) -> None:
        """Return when each has an end, or after so long."""
        deadline = time.monotonic() + within_s
        while len(self.ended) < len(self.submitted) and time.monotonic() < deadline:
            await asyncio.sleep(EVERY_S)

    async def completed(self) -> int:
        """How many have a record that says so."""
        found = await JobReads(self._r, self._keys).statuses(list(self.submitted))
        return sum(status is JobStatus.COMPLETED for status in found.values())
