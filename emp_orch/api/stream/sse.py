"""`GET /api/events/monitor`: server-sent events.

Order: `connected`; then `full_state_snapshot`, or after Last-Event-ID the events that were missed; then each event with
its stream id. With `?live=1` always the snapshot, then also `delta` (what differs from revision `base`) and `heartbeat`
every two seconds (docs/adr/0011). With `?every=MS` what comes in so many milliseconds is sent at once. A comment every
15 s keeps proxies from closing a silent stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from emp_orch.api.context import Context, context
from emp_orch.api.feed.frames import START, Batch, Frame, parse_id
from emp_orch.api.feed.gzipped import HEADER, deflated
from emp_orch.api.feed.hub import Subscription
from emp_orch.api.feed.live import HEARTBEAT
from emp_orch.api.state import ApiStats
from emp_orch.api.views.query import one_of, whole_number
from emp_orch.store.redis.client import TRANSIENT
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

COMMENT_S = 15.0
# A client that takes nothing for this long is gone or asleep.
WRITE_TIMEOUT_S = 30.0
# More missed events than this are told by a snapshot.
MAX_REPLAY = 2_000
MAX_EVERY_MS = 10_000
RETRY_MS = 1_000
PIECE_BYTES = 64 * 1024
# What may lie in one client's transport; more waits in its subscription.
ROOM_BYTES = 256 * 1024
AWAY_RETRY_S = 0.5

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

PACKED = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}

Send = Callable[[Batch], Awaitable[None]]


def accepts_gzip(header: str) -> bool:
    """Whether Accept-Encoding names gzip and does not refuse it (RFC 9110, §12.5.3)."""
    for part in header.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "").strip().rstrip("0.") != "q="
    return False


class SseStream:
    """One client's open event stream."""

    def __init__(self, response: web.StreamResponse, *, packed: bool) -> None:
        self.response = response
        self._packed = packed
        self._held = b""

    @classmethod
    async def open(cls, request: web.Request, *, pack: bool = False) -> SseStream:
        """Send the head. From here on errors can only end the stream. `pack`: as gzip, if the client takes that."""
        packed = pack and accepts_gzip(request.headers.get("Accept-Encoding", ""))
        response = web.StreamResponse(headers={**HEADERS, **(PACKED if packed else {})})
        await response.prepare(request)
        stream = cls(response, packed=packed)
        if packed:
            await stream.write(HEADER)
        return stream

    async def write(self, data: bytes) -> None:
        """A piece after the other: what is large waits here, where it is shared, and not copied into a transport."""
        whole = memoryview(data)
        for at in range(0, len(data), PIECE_BYTES):
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.response.write(whole[at : at + PIECE_BYTES])

    async def send(self, batch: Batch) -> None:
        for piece in batch.pieces(packed=self._packed):
            held, self._held = self._held, b""
            await self.write(held + piece if held else piece)

    async def end(self, batch: Batch) -> None:
        """Send the last of the stream, with its end."""
        last = b"".join((self._held, *batch.pieces(packed=self._packed)))
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self.response.write_eof(last)

    def hold(self, text: bytes) -> None:
        """Lines that go out with the first batch: each write wakes the client."""
        self._held = deflated(text) if self._packed else text

    async def say(self, text: bytes) -> None:
        """Lines of the stream that are no event."""
        await self.write(deflated(text) if self._packed else text)

    def direct(self, transport: asyncio.Transport) -> Callable[[Batch], bool]:
        """Puts a batch into `transport` as it is framed once for all, if there is room and the client is there."""

        def put(batch: Batch) -> bool:
            if transport.is_closing() or transport.get_write_buffer_size() + batch.size > ROOM_BYTES:
                return False
            transport.write(batch.chunk(packed=self._packed))
            return True

        return put

    async def comment(self) -> None:
        await self.say(b": heartbeat\n\n")

    @contextmanager
    def counted(self, stats: ApiStats) -> Iterator[None]:
        """While the client listens. That it goes away, or Redis does, ends its stream and is no error."""
        stats.sse_clients += 1
        try:
            yield
        except TRANSIENT as e:  # a client that has gone is a ConnectionResetError or a TimeoutError: both OSError
            log.debug("a stream ended: %s", e)
        finally:
            stats.sse_clients -= 1


async def monitor_events(request: web.Request) -> web.StreamResponse:
    ctx = context(request)
    live = one_of(request, "live", ("0", "1")) == "1"
    every_s = whole_number(request, "every", default=0, low=0, high=MAX_EVERY_MS) / 1000
    last_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    stream = await SseStream.open(request, pack=live)
    with stream.counted(ctx.stats), ctx.hub.subscribe(live=live) as subscription:
        await stream.say(f"retry: {RETRY_MS}\n\n".encode())
        if (
            not every_s
            and stream.response.headers.get("Transfer-Encoding") == "chunked"
            and request.transport is not None
        ):
            subscription.direct = stream.direct(request.transport)
        await pump(ctx, subscription, stream.send, stream.comment, last_id, every_s=every_s)
    return stream.response


async def pump(
    ctx: Context,
    subscription: Subscription,
    send: Send,
    idle: Callable[[], Awaitable[None]],
    last_id: str,
    *,
    every_s: float = 0,
) -> None:
    """Feed one client until it or the server ends: the beginning, then all that comes; anew whenever it was dropped.

    `every_s`: it wants what comes in that time at once.
    """
    missed = await _missed(ctx, last_id)
    connected = {"timestamp": rfc3339(now_ms()), "resumed": missed is not None, "live": subscription.live}
    await send(Batch([Frame("connected", connected), *(missed or ())]))
    subscription.sent = max([parse_id(last_id) or START, *(f.order for f in missed or () if f.order)])
    if missed is None or subscription.live:
        subscription.drop()
    while not subscription.closed:
        if subscription.lost:
            snapshot = await _snapshot(ctx, subscription, send)
            if snapshot is None:
                return
            subscription.sent = snapshot.last
            await send(snapshot)
        # Whatever it is sent meanwhile comes on top of the comment.
        taken = await subscription.batches(COMMENT_S)
        if taken and every_s:
            await asyncio.sleep(every_s)
            taken = [Batch([f for b in (*taken, *await subscription.batches(0)) for f in b.frames])]
        for batch in taken:
            left = batch.after(subscription.sent)
            if left.frames:
                await send(left)
                subscription.sent = max(subscription.sent, left.last)
        if not taken and not subscription.lost:
            await idle()


async def _missed(ctx: Context, last_id: str) -> list[Frame] | None:
    """The events after `last_id`; None when a snapshot must tell instead."""
    after = parse_id(last_id)
    if after is None:
        return None
    try:
        oldest = parse_id(await ctx.events.oldest_id()) or START
        latest = parse_id(await ctx.events.latest_id()) or START
        if not oldest <= after <= latest:
            return None
        events = await ctx.events.since(last_id, count=MAX_REPLAY + 1)
    except TRANSIENT:
        return None
    return [Frame.of(e) for e in events] if len(events) <= MAX_REPLAY else None


async def _snapshot(ctx: Context, subscription: Subscription, send: Send) -> Batch | None:
    """The whole state with the id to go on from; waits while Redis is away. None when the stream ended meanwhile."""
    while not subscription.closed:
        # First collect what comes from now on, then note the position, then look: nothing falls between.
        subscription.restart()
        try:
            position = "" if subscription.live else await ctx.events.latest_id()
            await ctx.live.fresh()
        except (*TRANSIENT, TimeoutError):
            waiting = await subscription.take(AWAY_RETRY_S)
            if beats := [f for f in waiting if f.event == HEARTBEAT]:
                await send(Batch(beats))
            continue
        if subscription.live:
            # Deltas that came until now are in it; of events that are not, the next delta tells the effect.
            subscription.restart()
            position = ctx.hub.position
        return ctx.live.snapshot(position, live=subscription.live)
    return None
