"""What both WebSockets share: message form, bounds, and how a connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from aiohttp import WSMsgType, web
from msgspec import Struct

from emp_orch.api.context import Context, context
from emp_orch.api.views.query import decoded
from emp_orch.errors import EmpError
from emp_orch.store.redis.client import TRANSIENT
from emp_orch.web.errors import Refused
from emp_orch.web.times import now_ms, rfc3339

MAX_MESSAGE_BYTES = 5 * 1024 * 1024
PING_S = 20.0

T = TypeVar("T")


class _Asked(Struct, frozen=True):
    """What is read of a message that does not fit: whose answer the error is."""

    request_id: str | None = None


_asked: msgspec.json.Decoder[_Asked] = msgspec.json.Decoder(_Asked)


def message(type_: str, **data: Any) -> str:
    return msgspec.json.encode({"type": type_, **data, "timestamp": rfc3339(now_ms())}).decode()


async def opened(request: web.Request) -> web.WebSocketResponse:
    """Raises Refused (426) for a request that asks for no WebSocket, or not as RFC 6455 has it."""
    ws = web.WebSocketResponse(heartbeat=PING_S, max_msg_size=MAX_MESSAGE_BYTES)
    if not ws.can_prepare(request):
        raise Refused(426, "this is a WebSocket: ask for an upgrade", headers={"Upgrade": "websocket"})
    await ws.prepare(request)
    return ws


async def read_messages(
    ws: web.WebSocketResponse, decoder: msgspec.json.Decoder[T], handle: Callable[[T], Awaitable[None]]
) -> None:
    """Handle each message until the client goes.

    One that does not fit, or finds Redis away, is answered by `error` with its `request_id`, and ends nothing.
    """
    async for received in ws:
        if received.type is not WSMsgType.TEXT:
            await ws.send_str(message("error", error="expected JSON text"))
            continue
        try:
            await handle(decoded(received.data, decoder))
        except EmpError as e:
            await ws.send_str(_error(e.message, received.data))
        except ConnectionResetError:
            return
        except TRANSIENT:
            await ws.send_str(_error("Redis does not answer; try again", received.data))


def _error(words: str, about: str) -> str:
    try:
        request_id = _asked.decode(about).request_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request_id = None
    return message("error", error=words, **({} if request_id is None else {"request_id": request_id}))


async def run_socket(
    request: web.Request, ws: web.WebSocketResponse, *parts: Coroutine[Any, Any, None]
) -> web.WebSocketResponse:
    """Run `parts` until one of them, or the server, ends; then close."""
    ctx: Context = context(request)
    tasks = [asyncio.create_task(part) for part in (*parts, _ended(ctx))]
    ctx.stats.ws_clients += 1
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ctx.stats.ws_clients -= 1
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    await ws.close()
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, TRANSIENT):
            raise outcome
    return ws


async def _ended(ctx: Context) -> None:
    await ctx.hub.ended.wait()
