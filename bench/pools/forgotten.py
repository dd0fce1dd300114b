"""When the fleet forgets members that went: looked at beside the load, by the one key that says who is a member."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from bench.pools.crowd import Crowd
from bench.reconcile.children import Failed
from emp_orch.seals import Seal
from emp_orch.store.fleet.pools.members import Members, Seen
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger(__name__)

EVERY_S = 0.5


class Forgotten:
    """`at_s`: when it was seen that a member is none any more, by the monotonic clock."""

    def __init__(self, r: Client, keys: Keys, fleet: str, crowd: Crowd) -> None:
        no_seal: Callable[[], Seal | None] = lambda: None  # noqa: E731
        self._members = Members(r, keys, fleet, no_seal)
        self._crowd = crowd
        self._seen: Seen | None = None
        self.at_s: dict[str, float] = {}

    async def watch(self) -> None:
        """For ever."""
        while True:
            try:
                await self._look()
            except TRANSIENT as e:
                log.warning("members cannot be read: %s", e or type(e).__name__)
            await asyncio.sleep(EVERY_S)

    async def _look(self) -> set[str]:
        """Who went, and is a member still."""
        self._seen = await self._members.read(self._seen)
        there = {str(m.id) for m in self._seen.members}
        went = {gone.machine_id for gone in (*self._crowd.left, *self._crowd.vanished)}
        for machine_id in went - there - self.at_s.keys():
            self.at_s[machine_id] = time.monotonic()
        return went & there

    async def all(self, within_s: float) -> None:
        """Return when all who went are forgotten. Raises Failed."""
        deadline = time.monotonic() + within_s
        while left := await self._look():
            if time.monotonic() > deadline:
                raise Failed(f"members still after {within_s:.0f} s: {', '.join(sorted(left)[:5])}")
            await asyncio.sleep(EVERY_S)

    def took_s(self) -> list[float]:
        """From a vanishing until it was forgotten, of each, in order."""
        return sorted(self.at_s[g.machine_id] - g.at_s for g in self._crowd.vanished if g.machine_id in self.at_s)
