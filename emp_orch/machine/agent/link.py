"""The agent's line to Redis: events in order, the report when it changed, a heartbeat when it did not.

With Redis away the machine works on. Events wait in a bounded box; the report is written anew once Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from emp_orch.fleet.model.observed import MachineReport
from emp_orch.machine.observe.rivals import Rivals
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis.client import REFUSED, TRANSIENT, Client, drop_idle, time_ms, within
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import machine_writer

HEARTBEAT_S = 2.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0)
MAX_WAITING_EVENTS = 1_000
# Changes come in bursts; one report for all of a burst.
SETTLE_S = 0.05
# Two clocks that run apart by more since they were last compared: one of them was set.
CLOCK_SET_MS = 1_000

log = logging.getLogger("agent")


class Link:
    """Owns everything the agent writes to Redis, except acknowledgements."""

    def __init__(
        self,
        r: Client,
        keys: Keys,
        machine_id: str,
        report: Callable[[], MachineReport],
        refused: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`refused` is awaited when Redis does not take our login, or not for what we ask."""
        self._r = r
        self._events = Events(r, keys)
        self._writer = machine_writer(r, keys, machine_id)
        self._machine_id = machine_id
        self._report = report
        self._refused = refused
        self._outbox: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_WAITING_EVENTS)
        self._dirty = asyncio.Event()
        self._rivals = Rivals()
        self.connected = False
        self.offset_ms = 0

    @property
    def rival(self) -> str:
        """Another agent that writes our report at present; empty when there is none."""
        return self._rivals.current(time.monotonic())

    def dirty(self) -> None:
        """The report changed: write it soon."""
        self._dirty.set()

    def event(self, type_: str, **data: Any) -> None:
        """Publish a machine event, in order, as soon as Redis takes it."""
        details = " ".join(f"{k}={v}" for k, v in data.items())
        log.info("Publishing %s event %s", type_, details)
        self._outbox.append((type_, {"machine_id": self._machine_id, **data}))
        self._dirty.set()

    async def run(self) -> None:
        """Write for ever; a failure is waited out with backoff."""
        failures = 0
        while True:
            try:
                async with within():
                    await self.flush()
                failures = 0
                await self._pause()
            except TRANSIENT as e:
                if self.connected or failures == 0:
                    log.warning("Redis is away: %s; the machine works on, reports wait", e)
                self.connected = False
                await drop_idle(self._r)
                if self._refused is not None and isinstance(e, REFUSED):
                    await self._refused()
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._dirty.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)

    async def flush(self) -> None:
        """Everything that waits, now. Raises what redis-py raises when Redis is away."""
        self._dirty.clear()
        if not self.connected:
            self.offset_ms = _ahead_ms(await time_ms(self._r))
        while self._outbox:
            type_, data = self._outbox[0]
            await self._events.append_machine(type_, **data)
            self._outbox.popleft()
        mine = self._report()
        other = await self._writer.write(mine)
        if not self.connected:  # one that reads but takes no writes is as good as away
            log.info("Redis answers; reports and events go out")
            self.connected = True
        self._compare_clocks()
        if other is not None and (rival := self._rivals.heard(mine, other, time.monotonic())) is not None:
            log.error("another agent reports as %s too: boot %s on %s", mine.machine_id, rival.boot_id, rival.host)
            self.event("machine_conflict", boot_id=mine.boot_id, other=rival.boot_id, host=rival.host)

    def _compare_clocks(self) -> None:
        """Only a clock that was set counts: what is reported must not change with each answer's way."""
        if (wrote_ms := self._writer.wrote_ms) is None:
            return
        ahead_ms = _ahead_ms(wrote_ms)
        if abs(ahead_ms - self.offset_ms) > CLOCK_SET_MS:
            self.offset_ms = ahead_ms
            self._dirty.set()  # what was just told has times of the old clock

    async def withdraw(self) -> None:
        """Take the report away: the machine ends in good order."""
        self._outbox.append(("machine_stopped", {"machine_id": self._machine_id}))
        while self._outbox:
            type_, data = self._outbox.popleft()
            await self._events.append_machine(type_, **data)
        await self._writer.withdraw()


def _ahead_ms(redis_ms: int) -> int:
    """How far Redis' clock is ahead of this host's."""
    return redis_ms - int(time.time() * 1000)
