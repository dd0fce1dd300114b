"""`/ws/monitor/{id}`: the events stream over WebSocket, for clients that rather speak that.

Client: `monitor_connect` → `connected`, then `full_state_snapshot`, then every event; `subscribe {types: […]}` keeps
only those types; `heartbeat` → `heartbeat_ack`. A message that does not fit is answered by `error` and ends nothing.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import Context, context
from emp_orch.api.feed.frames import Batch
from emp_orch.api.stream.sse import pump
from emp_orch.api.stream.ws_common import message, opened, read_messages, run_socket

ALWAYS = frozenset({"connected", "full_state_snapshot"})


class MonitorConnect(Struct, frozen=True, kw_only=True, tag_field="type", tag="monitor_connect"):
    """`live`: also `delta` and `heartbeat`. `last_event_id`: go on from there."""

    live: bool = False
    last_event_id: str = ""


class Subscribe(Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe"):
    """`types` empty: everything."""

    types: list[str] = []


class Heartbeat(Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    timestamp: str | int | float | None = None


MonitorMessage = MonitorConnect | Subscribe | Heartbeat

_decoder: msgspec.json.Decoder[MonitorMessage] = msgspec.json.Decoder(MonitorMessage)


class MonitorSocket:
    """One monitor's connection."""

    def __init__(self, ctx: Context, ws: web.WebSocketResponse) -> None:
        self._ctx = ctx
        self._ws = ws
        self._types: frozenset[str] = frozenset()
        self._connect: asyncio.Future[MonitorConnect] = asyncio.get_running_loop().create_future()

    async def read(self) -> None:
        await read_messages(self._ws, _decoder, self._handle)

    async def _handle(self, said: MonitorMessage) -> None:
        match said:
            case MonitorConnect():
                if not self._connect.done():
                    self._connect.set_result(said)
            case Subscribe():
                self._types = frozenset(said.types)
                await self._ws.send_str(message("subscribed", types=sorted(self._types)))
            case Heartbeat():
                await self._ws.send_str(message("heartbeat_ack"))

    async def push(self) -> None:
        said = await self._connect
        with self._ctx.hub.subscribe(live=said.live) as subscription:
            await pump(self._ctx, subscription, self._send, _nothing, said.last_event_id)

    async def _send(self, batch: Batch) -> None:
        for frame in batch.frames:
            if not self._types or frame.event in self._types or frame.event in ALWAYS:
                await self._ws.send_str(frame.ws)


async def _nothing() -> None:
    """WebSocket has pings of its own."""


async def monitor_socket(request: web.Request) -> web.WebSocketResponse:
    ws = await opened(request)
    socket = MonitorSocket(context(request), ws)
    return await run_socket(request, ws, socket.read(), socket.push())
