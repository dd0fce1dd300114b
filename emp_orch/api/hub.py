"""One reader of the events stream, and every client that listens to it.

An event is encoded once, and what goes out together is joined once. A client that does not keep up loses what waits
for it and is told everything anew: its buffer never grows past a bound.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from emp_orch.api.gzipped import Text, deflated
from emp_orch.store.connect import TRANSIENT
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.events import Event, Events

log = logging.getLogger(__name__)

T = TypeVar("T")

# What may wait for one client; all that are slow at the same time share it.
MAX_PENDING_BYTES = 8 * 1024 * 1024
BLOCK_MS = 5_000
# What comes so soon after other events goes out with the next.
GATHER_S = 0.05
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 5.0

# Those that are counted. `jobs_submitted` is one for each lane of a batch.
JOB_EVENTS = (
    *("job_submitted", "jobs_submitted", "job_assigned", "job_requeued", "job_cancel_requested"),
    *("job_completed", "job_failed", "job_cancelled", "job_timeout", "lane_unworkable", "lane_workable"),
)

ABOUT_JOBS = ("job", "lane_")

Order = tuple[int, int]
START: Order = (0, 0)

_STREAM_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_MAX_PART = 2**64 - 1


def parse_id(text: str) -> Order | None:
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
        return self._sse_head + self.data + b"\n\n"

    def pieces(self, *, packed: bool) -> Sequence[bytes]:
        """`sse` in parts; `packed`: as parts of a gzip stream."""
        return (deflated(self.sse) if packed else self.sse,)

    @property
    def _sse_head(self) -> bytes:
        head = f"event: {self.event}\n" + (f"id: {self.id}\n" if self.id else "")
        return head.encode() + b"data: "

    @cached_property
    def ws(self) -> str:
        return self._ws_of(self.data)

    def _ws_of(self, data: bytes) -> str:
        return msgspec.json.encode({"type": self.event, "id": self.id, "data": msgspec.Raw(data)}).decode()


class Large(Frame):
    """A frame around something large that many are sent: `body` is one object for all of them, not copied here."""

    def __init__(self, event: str, head: bytes, body: Text, tail: bytes, id_: str | None) -> None:
        super().__init__(event, b"", id_)
        self._parts = (head, body, tail)

    def pieces(self, *, packed: bool) -> Sequence[bytes]:
        head, body, tail = self._parts
        ends = (self._sse_head + head, tail + b"\n\n")
        first, last = map(deflated, ends) if packed else ends
        return (first, body.bytes(packed=packed), last)

    @property
    def ws(self) -> str:  # made for each who asks, and kept by nobody
        head, body, tail = self._parts
        return self._ws_of(head + body.plain + tail)


class Batch:
    """Frames that go out together. Every client that gets all of them is sent the same bytes, joined once."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.size = sum(len(f.data) for f in frames)
        orders = [f.order for f in frames if f.order is not None]
        self.first = min(orders, default=None)
        self.last = max(orders, default=START)

    def after(self, order: Order) -> Batch:
        """Without the events up to `order`."""
        if self.first is None or self.first > order:
            return self
        return Batch([f for f in self.frames if f.order is None or f.order > order])

    @cached_property
    def text(self) -> Text:
        return Text(b"".join(f.sse for f in self.frames))

    def pieces(self, *, packed: bool) -> Iterator[bytes]:
        """What is sent, in parts, of which large ones are shared by all; `packed`: as parts of a gzip stream."""
        if any(isinstance(f, Large) for f in self.frames):
            for frame in self.frames:
                yield from frame.pieces(packed=packed)
        else:
            yield self.text.bytes(packed=packed)

    def chunk(self, *, packed: bool) -> bytes:
        """The same as one chunk of an HTTP/1.1 body (RFC 9112, §7.1)."""
        return self._packed_chunk if packed else self._chunk

    @cached_property
    def _chunk(self) -> bytes:
        return _chunk(self.text.plain)

    @cached_property
    def _packed_chunk(self) -> bytes:
        return _chunk(self.text.packed)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


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
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._begin()
                delay_s = RETRY_FIRST_S
                async for batch in self._events.follow(self.position, block_ms=BLOCK_MS):
                    self._pass_on(batch)
                    if batch:
                        await asyncio.sleep(GATHER_S)
                    elif await self._began_anew():
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
