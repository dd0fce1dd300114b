"""One reconciler's part in who leads: takes the lease when it is free, keeps it while it acts, says once who leads.

Any number of reconcilers may run for a fleet, on any host. Those that stand by look when the lease that they know of
would end, and are woken by an event when it is given back.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from emp_orch.control.host import identity
from emp_orch.settings import write_private
from emp_orch.store.fleet.leader import Elsewhere, Leadership, Mandate, NotLeader
from emp_orch.store.redis.client import TRANSIENT, Client, within
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

LEASE_S = 10.0
# Of the lease's time, until it is renewed: it outlives two renewals that fail.
RENEW = 0.25
# A Redis that hangs must not keep us from stopping.
RESIGN_S = 3.0
# Redis drops the lease within this after its end.
AFTER_END_S = 0.02
MAX_DIGITS = 15


class LeaderElection:
    """`mandate` is None while another leads. While Redis is away it stays what it was, and `assure` knows better."""

    def __init__(
        self, r: Client, keys: Keys, fleet: str, who: str, *, lease_s: float = LEASE_S, epochs: Path | None = None
    ) -> None:
        """`epochs`: the file that keeps the highest epoch that was had here, for a Redis that forgets it."""
        self.who = who
        self.mandate: Mandate | None = None
        self._fleet = fleet
        self._epochs = epochs
        highest = _read(epochs)
        self._leadership = Leadership(r, keys, fleet, who, ttl_ms=int(lease_s * 1000), highest=highest)
        self._renew_s = lease_s * RENEW
        self._told = ""
        self._look_in_s: float | None = None

    async def take(self) -> Mandate | None:
        """Take or renew the lease; None when another holds it, who may live."""
        found = await self._leadership.acquire()
        if isinstance(found, Elsewhere) and identity.is_dead(found.holder):
            await self._leadership.take_from(found.holder)
            found = await self._leadership.acquire()
        if isinstance(found, Elsewhere):
            self.mandate = None
            self._look_in_s = found.left_ms / 1000 + AFTER_END_S
            self._tell(found.holder, logging.INFO)
            return None
        if found != self.mandate:
            log.info("leading %s with epoch %d", self._fleet, found.epoch)
            self._keep(found.epoch)
        self._look_in_s, self._told = None, self.who
        self.mandate = found
        return found

    def assure(self, mandate: Mandate) -> None:
        """Raise NotLeader unless `mandate` surely stands. Ask right before each act that Redis cannot fence."""
        self._leadership.assure(mandate)

    def required(self) -> Mandate:
        """The mandate we have now. Raises NotLeader when there is none."""
        if self.mandate is None:
            raise NotLeader(self._fleet, self._told if self._told != self.who else "")
        return self.mandate

    def stand_by(self, why: NotLeader) -> None:
        """A write or an act was refused: nothing more is done under this mandate."""
        self.mandate = None
        self._look_in_s = AFTER_END_S  # the next look tells who leads, or leads
        if why.holder:
            self._tell(why.holder, logging.WARNING)

    def wait_s(self, interval_s: float) -> float:
        """How long to wait for an event before the next look."""
        return interval_s if self._look_in_s is None else min(interval_s, self._look_in_s)

    async def keep(self) -> None:
        """Renew the lease beside the work, for ever: an interval may be longer than the lease."""
        while True:
            await asyncio.sleep(self._renew_s)
            if self.mandate is not None:
                try:
                    async with within():
                        await self.take()
                except TRANSIENT:
                    continue  # the loop says so; nothing is assured once the lease's time is over

    async def resign(self) -> None:
        """Give the lease back, so that another may lead at once."""
        self.mandate = None
        async with within(RESIGN_S):
            await self._leadership.release()

    def _keep(self, epoch: int) -> None:
        if self._epochs is None:
            return
        try:
            write_private(self._epochs, str(epoch).encode())
        except OSError as e:
            log.warning("cannot write %s: %s", self._epochs, e.strerror)

    def _tell(self, holder: str, level: int) -> None:
        if holder != self._told:
            self._told = holder
            log.log(level, "%s leads %s; standing by", holder, self._fleet)


def _read(path: Path | None) -> int:
    """What cannot be read counts as none: Redis knows it too."""
    try:
        text = path.read_text(errors="replace").strip() if path is not None else ""
    except OSError:
        return 0
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0
