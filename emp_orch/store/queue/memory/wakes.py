"""Who waits for work, and who was woken for it: the twin's half of the hand-off.

Promise: while a job waits, no live worker that may take it waits too, unless somebody was woken for its lane.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from emp_orch.jobs.matching.offers import Offers
from emp_orch.jobs.matching.requirements import Requirements, unmet
from emp_orch.store.queue.claim import MAX_AT_HAND


class _Waiter(Struct, frozen=True, kw_only=True):
    capabilities: Mapping[str, Any]
    until_ms: int


class _Woken(Struct, frozen=True, kw_only=True):
    lane: str
    since_ms: int


class Wakes:
    """Workers that wait, longest first; a bell and a letter box for each."""

    def __init__(self, *, grace_ms: int, answer_ms: int, offers: Mapping[str, Offers]) -> None:
        self._offers = offers
        self._grace_ms = grace_ms
        self._answer_ms = answer_ms
        self._waiting: dict[str, _Waiter] = {}
        self._woken: dict[str, _Woken] = {}
        self._at_hand: dict[str, tuple[str, ...]] = {}
        self._letters: defaultdict[str, deque[str]] = defaultdict(deque)
        self._bells: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def register(self, worker_id: str, capabilities: Mapping[str, Any], until_ms: int) -> None:
        """It waits, behind all who wait already."""
        self._waiting.pop(worker_id, None)
        self._waiting[worker_id] = _Waiter(capabilities=capabilities, until_ms=until_ms + self._grace_ms)

    def answered(self, worker_id: str) -> str | None:
        """It is here, so it waits no more and its letters are void; the lane that it was woken for."""
        self._waiting.pop(worker_id, None)
        self._letters.pop(worker_id, None)
        woken = self._woken.pop(worker_id, None)
        return woken.lane if woken else None

    def ran(self, worker_id: str, model: str) -> None:
        """It has this model at hand, as its last of at most MAX_AT_HAND."""
        mine = [model, *(m for m in self._at_hand.get(worker_id, ()) if m != model)]
        self._at_hand.pop(worker_id, None)
        self._at_hand[worker_id] = tuple(mine[:MAX_AT_HAND])

    def _in_turn(self, model: str) -> list[tuple[str, _Waiter]]:
        """Who waits: first those that ran this model, the last first; then by how long they wait."""
        warm = [w for w in reversed(self._at_hand) if model and model in self._at_hand[w] and w in self._waiting]
        return [(w, self._waiting[w]) for w in dict.fromkeys([*warm, *self._waiting])]

    def wake(self, lane: str, requirements: Requirements, now_ms: int, *, model: str = "") -> None:
        """Wake one of those that may take a job of this lane: who ran its model last, or who has waited longest."""
        for worker_id, waiter in self._in_turn(model):
            if waiter.until_ms < now_ms:
                del self._waiting[worker_id]  # it died: it was to come back before
            elif not unmet(requirements, waiter.capabilities, offers=self._offers):
                del self._waiting[worker_id]
                self._woken[worker_id] = _Woken(lane=lane, since_ms=now_ms)
                self.tell(worker_id, lane)
                return

    def silent(self, now_ms: int) -> list[str]:
        """The lanes of wakes that nobody answered in time; each is named once, for passing on."""
        late = [w for w, woken in self._woken.items() if woken.since_ms <= now_ms - self._answer_ms]
        return [self._woken.pop(w).lane for w in late]

    def tell(self, worker_id: str, letter: str) -> None:
        self._letters[worker_id].append(letter)
        self._bells[worker_id].set()

    async def hear(self, worker_id: str, seconds: float) -> str | None:
        """The next letter; None when there is none within `seconds` of the event loop's clock."""
        try:
            async with asyncio.timeout(seconds):
                while not self._letters[worker_id]:
                    self._bells[worker_id].clear()
                    await self._bells[worker_id].wait()
        except TimeoutError:
            return None
        return self._letters[worker_id].popleft()
