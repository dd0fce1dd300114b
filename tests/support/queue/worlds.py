"""A queue with a clock that a test moves: the one in Redis, and its twin in memory."""

from __future__ import annotations

import sys
from collections import defaultdict
from types import ModuleType
from typing import Protocol

import pytest

from emp_orch.jobs.document.states import ENDED
from emp_orch.jobs.matching.offers import Offers
from emp_orch.store.fleet.events import Event, Events
from emp_orch.store.queue.claim import Claims
from emp_orch.store.queue.memory.queue import MemoryClaims, MemoryQueue
from emp_orch.store.queue.port import ClaimsPort, QueuePort
from emp_orch.store.queue.submit import Queue
from emp_orch.store.queue.upkeep.reaper import Reaper, Swept
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys
from support.queue.positions import Places, age, places

# Far from what a slow machine may take for one example: on Redis the real clock runs along.
AVOID_MS = 1_000_000
LEASE_MS = 10_000_000
WAIT_S = 600.0
# Steps of time whose sums never come near a deadline made of the above: 100 s is the closest.
SHORT_MS = 600_000
MIDDLE_MS = 7_100_000
LONG_MS = 11_000_000

# What services have, by digest; workers that name none may have anything.
OFFERS = {"has-m": Offers(models=frozenset({"m.ckpt"})), "has-nothing": Offers()}

START_MS = 1_700_000_000_000


class World(Protocol):
    @property
    def queue(self) -> QueuePort: ...

    def claims(self, worker_id: str) -> ClaimsPort: ...

    async def reap(self) -> tuple[Swept, ...]: ...

    async def pass_time(self, ms: int) -> None: ...

    async def places(self) -> Places: ...

    async def news(self) -> list[Event]:
        """Events since it was asked last."""

    async def close(self) -> None: ...


class TwinWorld:
    def __init__(
        self, queue_type: type[MemoryQueue] = MemoryQueue, claims_type: type[MemoryClaims] = MemoryClaims
    ) -> None:
        self._now_ms = START_MS
        self.queue = queue_type(lambda: self._now_ms, avoid_ms=AVOID_MS, wait_s=WAIT_S, offers=OFFERS)
        self._claims_type = claims_type
        self._read = 0

    def claims(self, worker_id: str) -> MemoryClaims:
        return self._claims_type(self.queue, worker_id, lease_s=LEASE_MS / 1000)

    async def reap(self) -> tuple[Swept, ...]:
        return await self.queue.reap()

    async def pass_time(self, ms: int) -> None:
        self._now_ms += ms

    async def places(self) -> Places:
        lanes: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
        for job in self.queue.jobs.waiting():
            lanes[job.lane] += (job.id,)
        ended = tuple(j.id for j in self.queue.jobs.newest_first() if j.status in ENDED)
        return Places(
            lanes=lanes,
            leased=tuple(self.queue.leases),
            ended=ended,
            secrets=self.queue.jobs.keep_secrets,
            by_status={},
        )

    async def news(self) -> list[Event]:
        news = list(self.queue.events[self._read :])
        self._read += len(news)
        return news

    async def close(self) -> None:
        pass


class StoreWorld:
    """On a server of the test's own, which it empties. Its times are those of `slow_clocks`."""

    KEYS = Keys("t:")

    def __init__(self, url: str) -> None:
        self._r = client(url)
        self._last = "0-0"
        self._claims: list[Claims] = []
        self.queue = Queue(self._r, self.KEYS)

    async def open(self) -> None:
        await self._r.config_set("appendfsync", "no")  # nobody pulls the plug here
        await self._r.config_set("hz", 500)  # a wait of 10 ms is over after 10 ms
        await self._r.flushdb()

    def claims(self, worker_id: str) -> Claims:
        self._claims.append(Claims(self._r, self.KEYS, worker_id, lease_s=LEASE_MS / 1000))
        self._claims[-1].offers = OFFERS
        return self._claims[-1]

    async def reap(self) -> tuple[Swept, ...]:
        return await Reaper(self._r, self.KEYS).reap()

    async def pass_time(self, ms: int) -> None:
        await age(self._r, self.KEYS, ms)

    async def places(self) -> Places:
        return await places(self._r, self.KEYS)

    async def news(self) -> list[Event]:
        news = await Events(self._r, self.KEYS).since(self._last, count=1000)
        self._last = news[-1].id if news else self._last
        return news

    async def close(self) -> None:
        for claims in self._claims:
            await claims.aclose()
        await self._r.aclose()


def slow_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the queue in Redis this module's times, wherever its modules have the names."""
    patched = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("emp_orch.store.") and ".queue.memory" not in name and isinstance(module, ModuleType):
            for constant, value in (("AVOID_MS", AVOID_MS), ("WAIT_S", WAIT_S)):
                if hasattr(module, constant):
                    monkeypatch.setattr(module, constant, value)
                    patched.add(constant)
    assert patched == {"AVOID_MS", "WAIT_S"}, "the names have changed: the suite would depend on real time"
