"""The leader's lease and its epoch: one reconciler acts at a time, and each new leader has a higher epoch.

What a leader writes into Redis is fenced there (fencing). For what Redis cannot fence (a machine's start),
`Leadership.assure` says whether the lease surely stands: by this host's own clock, which runs on while it sleeps.
"""

from __future__ import annotations

import time
from typing import Any, cast

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.store.fleet.events import MAX_EVENTS, encode
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

# Of the lease's time, kept back for clocks that differ in rate and for the way from a check to the act.
MARGIN = 0.1
# No lease is longer: one that is was written by somebody else, or lost its end.
MAX_LEASE_MS = 3_600_000

_ACQUIRE = script("fleet/acquire", limits={"MAX_LEASE_MS": MAX_LEASE_MS})
_RELEASE = script("fleet/release")


class NotLeader(EmpError):
    """What only the leader may do was not done: `holder` leads, or nobody when it is empty."""

    def __init__(self, fleet: str, holder: str) -> None:
        who = f"{holder} leads {fleet} now" if holder else f"the lease on {fleet} is over"
        super().__init__(f"not done: {who}", hint="the leader decides anew; `emp status` names it")
        self.holder = holder


class Mandate(Struct, frozen=True, kw_only=True):
    """The right to act for `fleet`, from one `Leadership.acquire` until the lease is lost. What is written under it
    is compared with the lease and epoch in Redis."""

    fleet: str
    holder: str
    epoch: int


class Elsewhere(Struct, frozen=True, kw_only=True):
    """Another candidate holds the lease, for `left_ms` more unless it renews."""

    holder: str
    left_ms: int


class Leadership:
    """One candidate. `who` is unique to this process. `highest`: the highest epoch that was ever known here."""

    def __init__(self, r: Client, keys: Keys, fleet: str, who: str, *, ttl_ms: int, highest: int = 0) -> None:
        self._fleet = fleet
        self.who = who
        self._lease = [keys.leader(fleet), keys.epoch(fleet)]
        self._told = [keys.leader(fleet), keys.events]
        self._ttl_ms = ttl_ms
        self._highest = highest
        self._acquire = r.register_script(_ACQUIRE)
        self._release = r.register_script(_RELEASE)
        self._mandate: Mandate | None = None
        self._holder = ""
        self._stands_until_s = 0.0

    async def acquire(self) -> Mandate | Elsewhere:
        """Take or renew the lease."""
        asked_s = _now_s()  # before it is sent: Redis cannot have counted from earlier
        args: list[str | int] = [self.who, self._ttl_ms, self._highest]
        answer = cast(list[Any], await self._acquire(keys=self._lease, args=args))
        epoch, holder, left_ms, *theirs = str(answer[0]), str(answer[1]), int(answer[2]), *answer[3:]
        self._highest = max(self._highest, int(epoch or theirs[0]))
        if not epoch:
            self._mandate, self._holder = None, holder
            return Elsewhere(holder=holder, left_ms=max(0, left_ms))
        self._mandate = Mandate(fleet=self._fleet, holder=holder, epoch=int(epoch))
        self._stands_until_s = asked_s + self._ttl_ms / 1000 * (1 - MARGIN)
        return self._mandate

    def assure(self, mandate: Mandate) -> None:
        """Raise NotLeader unless `mandate` surely stands now. Ask right before each act that Redis cannot fence."""
        if self._mandate is None:
            raise NotLeader(self._fleet, self._holder)
        if self._mandate != mandate or _now_s() >= self._stands_until_s:
            raise NotLeader(self._fleet, "")

    async def release(self) -> None:
        """Give the lease back if it is ours. Nothing is assured from here on."""
        self._mandate, self._holder = None, ""
        await self.take_from(self.who)

    async def take_from(self, holder: str) -> None:
        """End the lease of `holder`, who is known to be dead, if it still has it."""
        event = encode("lease_released", {"fleet": self._fleet, "leader": holder})
        await self._release(keys=self._told, args=[holder, event["type"], event["data"], MAX_EVENTS])


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
