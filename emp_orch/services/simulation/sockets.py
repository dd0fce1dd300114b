"""Open WebSockets by client id; each has a bounded backlog of its own, so that a slow one delays nobody."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

# Messages a client may lag behind before it is dropped; it reconnects and reads /history.
CLIENT_BACKLOG = 1_000
# Kinds of binary messages: of ComfyUI's protocol.py.
PREVIEW_IMAGE = 1
PREVIEW_IMAGE_WITH_METADATA = 4
# Formats of a preview: 1 is JPEG.
PNG = 2


class _Client:
    def __init__(self) -> None:
        self.waiting: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self.flags: dict[str, Any] = {}


class Sockets:
    """Who listens. `features` is what the server tells a client that sends its own; None: it knows none."""

    def __init__(self, features: dict[str, Any] | None) -> None:
        self._clients: dict[str, _Client] = {}
        self._features = features

    def send(self, type_: str, data: dict[str, Any], client_id: str | None) -> None:
        """To one client, or to all."""
        self._put(msgspec.json.encode({"type": type_, "data": data}).decode(), self._of(client_id))

    def show(self, picture: bytes, metadata: dict[str, Any], client_id: str | None) -> None:
        """A PNG, in the form that the client asked for; clients of no prompt get the plain one."""
        for client in self._of(client_id):
            if client_id is not None and client.flags.get("supports_preview_metadata") is True:
                about = msgspec.json.encode({**metadata, "image_type": "image/png"})
                self._put(struct.pack(">II", PREVIEW_IMAGE_WITH_METADATA, len(about)) + about + picture, [client])
            else:
                self._put(struct.pack(">II", PREVIEW_IMAGE, PNG) + picture, [client])

    def close(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)

    async def serve(self, socket: web.WebSocketResponse, client_id: str, first: list[dict[str, Any]]) -> None:
        """Pass messages on, from `first`, until the client goes or lags too far behind.

        As in ComfyUI a second connection under one id takes the messages over, while the first stays open and mute;
        and when either ends, neither is sent any more.
        """
        client = self._clients[client_id] = _Client()
        for message in first:
            self._put(msgspec.json.encode(message).decode(), [client])
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(_pump(socket, client.waiting), name=f"ws {client_id}")
            try:
                await self._hear(socket, client)
            finally:
                self._clients.pop(client_id, None)
                client.waiting.put_nowait(None)
                await sender

    async def _hear(self, socket: web.WebSocketResponse, client: _Client) -> None:
        """A client has one thing to say, at first: what it understands. Reading notices its end."""
        first = True
        async for message in socket:
            if message.type is not WSMsgType.TEXT or not first:
                continue
            first = False
            try:
                told = msgspec.json.decode(message.data, type=dict[str, Any])
            except (msgspec.DecodeError, RecursionError):
                continue
            flags = told.get("data")
            if told.get("type") == "feature_flags" and isinstance(flags, dict) and self._features is not None:
                client.flags = flags
                answer = {"type": "feature_flags", "data": self._features}
                self._put(msgspec.json.encode(answer).decode(), [client])

    def _of(self, client_id: str | None) -> list[_Client]:
        if client_id is None:
            return list(self._clients.values())
        return [self._clients[client_id]] if client_id in self._clients else []

    def _put(self, message: bytes | str, clients: list[_Client]) -> None:
        for client in clients:
            if client.waiting.qsize() >= CLIENT_BACKLOG:
                self._drop(client)
            else:
                client.waiting.put_nowait(message)

    def _drop(self, client: _Client) -> None:
        """End this connection."""
        self._clients = {i: c for i, c in self._clients.items() if c is not client}
        client.waiting.put_nowait(None)


async def _pump(socket: web.WebSocketResponse, waiting: asyncio.Queue[bytes | str | None]) -> None:
    """Send what is waiting until there is None or the client is gone."""
    try:
        while (message := await waiting.get()) is not None:
            if isinstance(message, str):
                await socket.send_str(message)
            else:
                await socket.send_bytes(message)
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"this connection lagged behind")
    except ConnectionError:
        return
