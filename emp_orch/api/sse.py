"""`GET /api/events/monitor`: server-sent events.

Order: `connected`; then `full_state_snapshot`, or after Last-Event-ID the events that were missed; then each event with
its stream id. With `?live=1` also `state` (the whole state whenever it changed) and `heartbeat` every two seconds. A
comment every 15 s keeps proxies from closing a silent stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from aiohttp import web

from emp_orch.api.context import Context, context
from emp_orch.api.hub import Frame, Subscription, parse_id
from emp_orch.api.live import HEARTBEAT
from emp_orch.api.state import ApiStats
from emp_orch.store.connect import TRANSIENT
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

COMMENT_S = 15.0
# A client that takes nothing for this long is gone or asleep.
WRITE_TIMEOUT_S = 30.0
# More missed events than this are told by a snapshot.
MAX_REPLAY = 2_000
RETRY_MS = 1_000
AWAY_RETRY_S = 0.5

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

Send = Callable[[list[Frame]], Awaitable[None]]


class SseStream:
    """One client's open event stream."""

    def __init__(self, response: web.StreamResponse) -> None:
        self.response = response

    @classmethod
    async def open(cls, request: web.Request) -> SseStream:
        """Send the head. From here on errors can only end the stream."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        return cls(response)

    async def write(self, data: bytes) -> None:
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await self.response.write(data)

    async def send(self, frames: list[Frame]) -> None:
        await self.write(b"".join(f.sse for f in frames))

    async def comment(self) -> None:
        await self.write(b": heartbeat\n\n")

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
    live = request.query.get("live") == "1"
    last_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    stream = await SseStream.open(request)
    with stream.counted(ctx.stats), ctx.hub.subscribe(live=live) as subscription:
        await stream.write(f"retry: {RETRY_MS}\n\n".encode())
        await pump(ctx, subscription, stream.send, stream.comment, last_id)
    return stream.response


async def pump(
    ctx: Context, subscription: Subscription, send: Send, idle: Callable[[], Awaitable[None]], last_id: str
) -> None:
    """Feed one client until it or the server ends: the beginning, then all that comes; anew whenever it was dropped."""
    missed = await _missed(ctx, last_id)
    connected = {"timestamp": rfc3339(now_ms()), "resumed": missed is not None, "live": subscription.live}
    await send([Frame("connected", connected), *(missed or ())])
    sent = max([parse_id(last_id) or (0, 0), *(f.order for f in missed or () if f.order)])
    if missed is None or subscription.live:
        subscription.drop()
    last_sent = monotonic()
    while not subscription.closed:
        if subscription.lost:
            snapshot = await _snapshot(ctx, subscription, send)
            if snapshot is None:
                return
            await send([snapshot])
            sent = snapshot.order or (0, 0)
            last_sent = monotonic()
        frames = [f for f in await subscription.take(COMMENT_S) if f.order is None or f.order > sent]
        if frames:
            await send(frames)
            sent = max([sent, *(f.order for f in frames if f.order)])
            last_sent = monotonic()
        elif monotonic() - last_sent >= COMMENT_S:
            await idle()
            last_sent = monotonic()


async def _missed(ctx: Context, last_id: str) -> list[Frame] | None:
    """The events after `last_id`; None when a snapshot must tell instead."""
    after = parse_id(last_id)
    if after is None:
        return None
    try:
        oldest = parse_id(await ctx.events.oldest_id()) or (0, 0)
        latest = parse_id(await ctx.events.latest_id()) or (0, 0)
        if not oldest <= after <= latest:
            return None
        events = await ctx.events.since(last_id, count=MAX_REPLAY + 1)
    except TRANSIENT:
        return None
    return [Frame.of(e) for e in events] if len(events) <= MAX_REPLAY else None


async def _snapshot(ctx: Context, subscription: Subscription, send: Send) -> Frame | None:
    """The whole state with the id to go on from; waits while Redis is away. None when the stream ended meanwhile."""
    while not subscription.closed:
        # First collect what comes from now on, then note the position, then look: nothing falls between.
        subscription.restart()
        try:
            position = await ctx.events.latest_id()
            return Frame("full_state_snapshot", ctx.live.document(await ctx.reader.read()), position)
        except TRANSIENT:
            pass
        waiting = await subscription.take(AWAY_RETRY_S)
        if heartbeats := [f for f in waiting if f.event == HEARTBEAT]:
            await send(heartbeats)
    return None
