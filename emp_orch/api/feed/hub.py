"""One reader of the events stream, and every client that listens to it.

A client that does not keep up loses what waits for it and is told everything anew: its buffer never grows past a bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from emp_orch.api.feed.frames import START, Batch, Frame, parse_id
from emp_orch.store.fleet.events import Event, Events
from emp_orch.store.redis.client import TRANSIENT
from emp_orch.web.limits import RETRY_FIRST_S, RETRY_MAX_S

log = logging.getLogger(__name__)

# What may wait for one client; all that are slow at the same time share it.
MAX_PENDING_BYTES = 8 * 1024 * 1024
BLOCK_MS = 5_000

# Those that are counted. `jobs_submitted` is one for each lane of a batch.
JOB_EVENTS = (
    *("job_submitted", "jobs_submitted", "job_assigned", "job_requeued", "job_cancel_requested"),
    *("job_completed", "job_failed", "job_cancelled", "job_timeout", "lane_unworkable", "lane_workable"),
)

ABOUT_JOBS = ("job", "lane_")


class Subscription:
    """One client's bounded buffer. `live` clients also get deltas and heartbeats.

    `direct` may put a batch on its way at once, and says whether it did; it is only asked while the client waits with
    nothing before it. `sent`: the last event that the client was told.
    """

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.closed = False
        self.lost = False
        self.sent = START
        self.direct: Callable[[Batch], bool] | None = None
        self._pending: deque[Batch] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = False

    def offer(self, batch: Batch) -> bool:
        """Put `batch` behind what waits. False when that was too much: all of it is dropped, `lost` is set."""
        if self.lost:
            return True
        if self._idle and self.direct is not None and batch.after(self.sent) is batch and self.direct(batch):
            self.sent = max(self.sent, batch.last)
            return True
        self._bytes += batch.size
        if self._bytes > MAX_PENDING_BYTES:
            self.drop()
            return False
        self._pending.append(batch)
        self._stir()
        return True

    def drop(self) -> None:
        """Forget what waits: the client is to be told everything anew."""
        self._pending.clear()
        self._bytes = 0
        self.lost = True
        self._stir()

    def close(self) -> None:
        self.closed = True
        self._stir()

    def _stir(self) -> None:
        self._idle = False
        self._wake.set()

    async def take(self, timeout_s: float) -> list[Frame]:
        """The frames of `batches`, one by one."""
        return [frame for batch in await self.batches(timeout_s) for frame in batch.frames]

    async def batches(self, timeout_s: float) -> list[Batch]:
        """All that waits, as soon as there is something; empty after `timeout_s`, when closed, or when lost."""
        self._idle = not self._wake.is_set()
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        finally:
            self._idle = False
        self._wake.clear()
        taken = list(self._pending)
        self._pending.clear()
        self._bytes = 0
        return taken

    def restart(self) -> None:
        """Begin anew, with nothing that waits; the caller sends a snapshot next."""
        self._pending.clear()
        self._bytes = 0
        self.lost = False


class Hub:
    """Follows the stream and fans out. `connected` says whether it reads now; `on_lost` is called when Redis went."""

    def __init__(self, events: Events, on_lost: Callable[[], Awaitable[None]]) -> None:
        self._events = events
        self._on_lost = on_lost
        self._clients: set[Subscription] = set()
        self.position = ""
        self.connected = False
        self.seen = 0
        # Whether an event spoke of jobs since somebody asked.
        self._jobs_changed = True
        # What live clients are still to be told: events go out with the delta they led to.
        self._held: list[Frame] = []
        self.job_events = dict.fromkeys(JOB_EVENTS, 0)
        self.resyncs = 0
        self.closed = False
        self.ended = asyncio.Event()
        # Set whenever something came that may have changed the state.
        self.changed = asyncio.Event()

    @contextmanager
    def subscribe(self, *, live: bool) -> Iterator[Subscription]:
        subscription = Subscription(live=live)
        self._clients.add(subscription)
        if self.closed:
            subscription.close()
        try:
            yield subscription
        finally:
            self._clients.discard(subscription)

    @property
    def has_live_clients(self) -> bool:
        return any(c.live for c in self._clients)

    def jobs_changed(self) -> bool:
        """Whether an event spoke of jobs or lanes since the last call."""
        changed, self._jobs_changed = self._jobs_changed, False
        return changed

    def release(self, *more: Frame) -> None:
        """Send live clients the events that were held for them, and `more` behind."""
        frames, self._held = [*self._held, *more], []
        if frames:
            self._offer(Batch(frames), live=True)

    def _offer(self, batch: Batch, *, live: bool) -> None:
        for client in self._clients:
            if client.live is live and not client.offer(batch):
                self.resyncs += 1

    def resync_all(self) -> None:
        """Let every client begin anew: what was missed cannot be known."""
        for client in self._clients:
            client.drop()

    def close(self) -> None:
        """End every client's stream."""
        self.closed = True
        self.ended.set()
        for client in self._clients:
            client.close()

    async def run(self) -> None:
        """Follow the stream for ever, through every absence of Redis."""
        async with self._events.apart() as events:
            await self._follow(events)

    async def _follow(self, events: Events) -> None:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._begin()
                delay_s = RETRY_FIRST_S
                async for batch in events.follow(self.position, block_ms=BLOCK_MS):
                    self._pass_on(batch)
                    if not batch and await self._began_anew():
                        break
            except TRANSIENT as e:
                if self.connected or delay_s == RETRY_FIRST_S:
                    log.warning("cannot follow events: %s; trying again", e)
                self.connected = False
                self.changed.set()
                await self._on_lost()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _begin(self) -> None:
        first = not self.position
        if first or await self._began_anew():
            self.position = await self._events.latest_id()
        self.connected = True
        log.info("subscribed to events")
        self.changed.set()
        if not first:
            self.resync_all()

    async def _began_anew(self) -> bool:
        """Whether another stream is there than we follow: an emptied Redis starts its ids anew, and waiting behind the
        old position would be for ever. Nobody has to have hung up: Redis may be back between two reads.
        """
        latest = await self._events.latest_id()
        return (parse_id(latest) or START) < (parse_id(self.position) or START)

    def _pass_on(self, events: list[Event]) -> None:
        if not events:
            return
        for event in events:
            if event.type in self.job_events:
                self.job_events[event.type] += 1
            if event.type.startswith(ABOUT_JOBS):
                self._jobs_changed = True
        frames = [Frame.of(event) for event in events]
        self._offer(Batch(frames), live=False)
        self._held += frames
        self.position = events[-1].id
        self.seen += len(events)
        self.changed.set()
