"""One reader of the events stream, and every client that listens to it.

An event is encoded once. A client that does not keep up loses what waits for it and is told everything anew: its
buffer never grows past a bound.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from emp_orch.store.connect import TRANSIENT
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.events import Event, Events

log = logging.getLogger(__name__)

T = TypeVar("T")

# What may wait for one client. A snapshot of 1,000 machines is about 3 MB.
MAX_PENDING_BYTES = 8 * 1024 * 1024
BLOCK_MS = 5_000
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0

# Those that are counted. `jobs_submitted` is one for each lane of a batch.
JOB_EVENTS = (
    *("job_submitted", "jobs_submitted", "job_assigned", "job_requeued", "job_cancel_requested"),
    *("job_completed", "job_failed", "job_cancelled", "job_timeout", "lane_unworkable", "lane_workable"),
)

_STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_PART = 2**64 - 1


def parse_id(text: str) -> tuple[int, int] | None:
    """A stream id as a pair that sorts; None when `text` is none."""
    match = _STREAM_ID.fullmatch(text)
    found = (int(match[1]), int(match[2])) if match else None
    return found if found and max(found) <= _MAX_PART else None


class JobEvent(Struct, frozen=True, kw_only=True):
    """What every event of one job carries."""

    job_id: str
    status: str = ""


class LaneEvent(Struct, frozen=True, kw_only=True):
    """What `lane_unworkable` and `lane_workable` carry: the jobs that wait in that lane changed."""

    lane: str


class Frame:
    """One message, encoded once for all clients. `id` is the stream id, None for what is not in the stream."""

    def __init__(self, event: str, data: Any, id_: str | None = None) -> None:
        self.event = event
        self.id = id_
        self.order = parse_id(id_) if id_ else None
        self.data: bytes = data if isinstance(data, bytes) else msgspec.json.encode(data)

    @classmethod
    def of(cls, event: Event) -> Frame:
        # SSE would end the event's name at a newline.
        name = event.type if event.type.isprintable() and event.type else "malformed"
        return cls(name, event.data, event.id)

    @cached_property
    def job(self) -> JobEvent | None:
        """The job that this event of the stream is about; None for any other event."""
        return self._about("job_", JobEvent)

    @cached_property
    def lane(self) -> str | None:
        """The lane whose verdict this event tells; None for any other event."""
        told = self._about("lane_", LaneEvent)
        return told.lane if told else None

    def _about(self, prefix: str, type_: type[T]) -> T | None:
        if self.id is None or not self.event.startswith(prefix):
            return None
        try:
            return msgspec.json.decode(self.data, type=type_)
        except DAMAGED:
            return None

    @cached_property
    def sse(self) -> bytes:
        """As the event stream format has it (HTML standard, §9.2). JSON has no raw newlines, so one data line does."""
        head = f"event: {self.event}\n" + (f"id: {self.id}\n" if self.id else "")
        return head.encode() + b"data: " + self.data + b"\n\n"

    @cached_property
    def ws(self) -> str:
        head = {"type": self.event, "id": self.id}
        return msgspec.json.encode({**head, "data": msgspec.Raw(self.data)}).decode()


class Subscription:
    """One client's bounded buffer. `live` clients also get states and heartbeats."""

    def __init__(self, *, live: bool) -> None:
        self.live = live
        self.closed = False
        self.lost = False
        self._pending: deque[Frame] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()

    def offer(self, frame: Frame) -> bool:
        """Put `frame` behind what waits. False when that was too much: all of it is dropped, `lost` is set."""
        if self.lost:
            return True
        self._bytes += len(frame.data)
        if self._bytes > MAX_PENDING_BYTES:
            self.drop()
            return False
        self._pending.append(frame)
        self._wake.set()
        return True

    def drop(self) -> None:
        """Forget what waits: the client is to be told everything anew."""
        self._pending.clear()
        self._bytes = 0
        self.lost = True
        self._wake.set()

    def close(self) -> None:
        self.closed = True
        self._wake.set()

    async def take(self, timeout_s: float) -> list[Frame]:
        """All that waits, as soon as there is something; empty after `timeout_s`, when closed, or when lost."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        self._wake.clear()
        taken = list(self._pending)
        self._pending.clear()
        self._bytes = 0
        return taken

    def restart(self) -> None:
        """Begin anew after `lost`; the caller sends a snapshot next."""
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

    def broadcast(self, frame: Frame, *, live_only: bool = False) -> None:
        for client in self._clients:
            if (client.live or not live_only) and not client.offer(frame):
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
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._begin()
                delay_s = RETRY_FIRST_S
                async for batch in self._events.follow(self.position, block_ms=BLOCK_MS):
                    self._pass_on(batch)
            except TRANSIENT as e:
                if self.connected or delay_s == RETRY_FIRST_S:
                    log.warning("cannot follow events: %s; trying again", e)
                self.connected = False
                self.changed.set()
                await self._on_lost()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _begin(self) -> None:
        latest = await self._events.latest_id()
        first = not self.position
        # An emptied Redis starts its ids anew: waiting behind the old position would be for ever.
        if first or (parse_id(latest) or (0, 0)) < (parse_id(self.position) or (0, 0)):
            self.position = latest
        self.connected = True
        log.info("subscribed to events")
        self.changed.set()
        if not first:
            self.resync_all()

    def _pass_on(self, batch: list[Event]) -> None:
        for event in batch:
            if event.type in self.job_events:
                self.job_events[event.type] += 1
            self.broadcast(Frame.of(event))
        if batch:
            self.position = batch[-1].id
            self.seen += len(batch)
            self.changed.set()
