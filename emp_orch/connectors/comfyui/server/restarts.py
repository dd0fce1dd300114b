"""Notices that a ComfyUI server began anew: a socket stays open for as long as its process lives."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress

import aiohttp

from emp_orch.connectors.comfyui.server.session import Session
from emp_orch.connectors.http.client import NETWORK

_OPEN_S = 3.0


class Watch:
    """Holds a socket of its own, on which only changes of the queue are told.

    Without heartbeats: a node may hold the whole process for longer than any of them waits.
    """

    def __init__(self, server: Session) -> None:
        self.life = 0
        self._server = server
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """Raise `life` by one when the server is another process than at the last look."""
        if self._socket is not None and not self._socket.closed:
            return
        await self.close()
        with suppress(*NETWORK, aiohttp.WSServerHandshakeError):  # whoever probes it tells what is wrong
            async with asyncio.timeout(_OPEN_S):
                self._socket = await self._server.http.ws_connect(self._url(), max_msg_size=0)
            self.life += 1
            self._reading = asyncio.create_task(self._drain(self._socket), name="watch a ComfyUI")

    def _url(self) -> str:
        scheme = "wss" if self._server.url.scheme == "https" else "ws"
        return str((self._server.url / "ws").with_scheme(scheme).with_query(clientId=f"emp-watch-{uuid.uuid4().hex}"))

    @staticmethod
    async def _drain(socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read until it ends, and keep nothing."""
        with suppress(*NETWORK):
            async for _ in socket:
                pass
        await socket.close()

    async def close(self) -> None:
        reading, socket = self._reading, self._socket
        self._reading = self._socket = None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        if socket is not None:
            with suppress(*NETWORK):
                await socket.close()
