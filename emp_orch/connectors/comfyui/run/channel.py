"""The socket of this worker's runs, kept open from one to the next; between them it tells whether the server is free.

A socket for each run would cost more than a short run itself. Runs are told apart by their prompt's id. Each connection
has an id of its own: of two under one id, ComfyUI mutes the newer when the older ends.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec

from emp_orch.connectors.base import MALFORMED
from emp_orch.connectors.comfyui.server.protocol import Message
from emp_orch.connectors.comfyui.server.session import Session
from emp_orch.connectors.http.client import NETWORK

# So long what the server told of its queue is believed: a connection may be dead before anybody notices.
TRUSTED_S = 10.0


class Channel:
    """One socket at a time; opened when a run needs it and there is none. Raises NETWORK errors."""

    def __init__(self, session: Session) -> None:
        self.client_id = ""
        self._session = session
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._remaining: int | None = None
        self._told_s = float("-inf")

    def says_free(self) -> bool:
        """Whether the server has told a moment ago that nothing runs and nothing waits, and nothing else since.

        It tells so of every change, whoever made it, before it tells the end of a run.
        """
        if self._socket is None or self._socket.closed:
            return False
        return self._remaining == 0 and time.monotonic() - self._told_s < TRUSTED_S

    def note(self, message: Message) -> None:
        """Take from a message what it tells of the queue."""
        if message.type == "status":
            self._remaining, self._told_s = _remaining(message.data), time.monotonic()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The socket, for one run to read. Whoever closes it has the next run open another."""
        await self._stop_reading()
        if self._socket is None or self._socket.closed:
            await self.drop()
            client_id = f"emp-{uuid.uuid4().hex}"
            self._socket = await self._session.listen(client_id)
            self.client_id = client_id
        socket = self._socket
        try:
            yield socket
        finally:
            if self._socket is socket and not socket.closed:
                self._reading = asyncio.create_task(self._read(socket), name="between two runs of a ComfyUI")

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        with suppress(*NETWORK):
            async for got in socket:
                if got.type is aiohttp.WSMsgType.TEXT:
                    with suppress(*MALFORMED):
                        self.note(msgspec.json.decode(got.data, type=Message))
        await socket.close()

    async def _stop_reading(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])

    async def drop(self) -> None:
        """Close it: another listens under its id, or it has kept something back."""
        await self._stop_reading()
        socket, self._socket, self._remaining = self._socket, None, None
        if socket is not None:
            with suppress(*NETWORK):
                await socket.close()


def _remaining(data: dict[str, Any]) -> int | None:
    """How many prompts a `status` message counts; None where it does not say."""
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    count = info.get("queue_remaining") if isinstance(info, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else None
