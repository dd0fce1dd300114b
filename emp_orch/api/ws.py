"""`/ws/monitor/{id}`: the events stream over WebSocket, for clients that rather speak that.

Client: `monitor_connect` → `connected`, then `full_state_snapshot`, then every event; `subscribe {types: […]}` keeps
only those types; `heartbeat` → `heartbeat_ack`. A message that does not fit is answered by `error` and ends nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from msgspec import Struct

from emp_orch.api.context import Context, context
from emp_orch.api.hub import Frame
from emp_orch.api.query import decoded
from emp_orch.api.sse import pump
from emp_orch.web.errors import Refused
from emp_orch.web.times import now_ms, rfc3339

MAX_MESSAGE_BYTES = 64 * 1024
PING_S = 20.0
ALWAYS = frozenset({"connected", "full_state_snapshot"})


class MonitorConnect(Struct, frozen=True, kw_only=True, tag_field="type", tag="monitor_connect"):
    """`live`: also `state` and `heartbeat`. `last_event_id`: go on from there."""

    live: bool = False
    last_event_id: str = ""


class Subscribe(Struct, frozen=True, kw_only=True, tag_field="type", tag="subscribe"):
    """`types` empty: everything."""

    types: list[str] = []


class Heartbeat(Struct, frozen=True, kw_only=True, tag_field="type", tag="heartbeat"):
    timestamp: str | int | float | None = None


MonitorMessage = MonitorConnect | Subscribe | Heartbeat

_decoder: msgspec.json.Decoder[MonitorMessage] = msgspec.json.Decoder(MonitorMessage)


def message(type_: str, **data: Any) -> str:
    return msgspec.json.encode({"type": type_, **data, "timestamp": rfc3339(now_ms())}).decode()


class MonitorSocket:
    """One monitor's connection."""

    def __init__(self, ctx: Context, ws: web.WebSocketResponse, client_id: str) -> None:
        self._ctx = ctx
        self._ws = ws
        self._id = client_id
        self._types: frozenset[str] = frozenset()
        self._connect: asyncio.Future[MonitorConnect] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Read and push until either side ends."""
        push = asyncio.create_task(self._push(), name=f"ws push {self._id}")
        read = asyncio.create_task(self._read(), name=f"ws read {self._id}")
        ended = asyncio.create_task(self._ctx.hub.ended.wait(), name=f"ws end {self._id}")
        tasks = {push, read, ended}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception) and not isinstance(outcome, ConnectionResetError):
                raise outcome

    async def _read(self) -> None:
        async for received in self._ws:
            if received.type is not WSMsgType.TEXT:
                await self._ws.send_str(message("error", error="expected JSON text"))
                continue
            try:
                await self._handle(decoded(received.data, _decoder))
            except Refused as e:
                await self._ws.send_str(message("error", error=e.message))

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

    async def _push(self) -> None:
        said = await self._connect
        with self._ctx.hub.subscribe(live=said.live) as subscription:
            await pump(self._ctx, subscription, self._send, _nothing, said.last_event_id)

    async def _send(self, frames: list[Frame]) -> None:
        for frame in frames:
            if not self._types or frame.event in self._types or frame.event in ALWAYS:
                await self._ws.send_str(frame.ws)


async def _nothing() -> None:
    """WebSocket has pings of its own."""


async def monitor_socket(request: web.Request) -> web.WebSocketResponse:
    ctx = context(request)
    ws = web.WebSocketResponse(heartbeat=PING_S, max_msg_size=MAX_MESSAGE_BYTES)
    await ws.prepare(request)
    ctx.stats.ws_clients += 1
    try:
        await MonitorSocket(ctx, ws, request.match_info["id"]).run()
    finally:
        ctx.stats.ws_clients -= 1
        await ws.close()
    return ws
