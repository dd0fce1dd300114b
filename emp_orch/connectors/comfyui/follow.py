"""Following one run to its end, by the service's messages and, where they are lost, by its history."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec

from emp_orch.connectors.base import MALFORMED
from emp_orch.connectors.comfyui.progress import ProgressOfRun
from emp_orch.connectors.comfyui.protocol import Interrupted, Message, Record, node_failure
from emp_orch.connectors.comfyui.server import Server
from emp_orch.connectors.http_client import NETWORK

# Without a message for so long, the history is looked at: a message can be lost with a connection.
SILENCE_S = 5.0
RECONNECT_S = 0.5
# How long a service may be out of reach in the middle of a run.
GONE_S = 15.0

_OVER = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


class Follower:
    """The run `prompt_id`, whose messages go to `client_id`."""

    def __init__(self, server: Server, client_id: str, prompt_id: str, progress: ProgressOfRun) -> None:
        self.prompt_id = prompt_id
        self._server = server
        self._client_id = client_id
        self._progress = progress
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def wake(self) -> None:
        """Have `follow` look at the history now: nobody will tell of the run any more."""
        if self._socket is not None:
            await self._socket.close()

    async def follow(self, socket: aiohttp.ClientWebSocketResponse) -> Record | None:
        """Pass progress on until the run is over; its record. None: the connection ended before."""
        self._socket = socket
        while True:
            try:
                got = await socket.receive(timeout=SILENCE_S)
            except TimeoutError:
                if record := await self._server.record(self.prompt_id):
                    return record
                await self._server.still_there(self.prompt_id)
                continue
            if got.type in _OVER:
                return None
            if got.type is not aiohttp.WSMsgType.TEXT:
                continue  # previews are binary
            try:
                message = msgspec.json.decode(got.data, type=Message)
            except MALFORMED:
                continue  # another extension's message
            if message.data.get("prompt_id") == self.prompt_id and (record := await self._take(message)):
                return record

    async def _take(self, message: Message) -> Record | None:
        match message.type:
            case "execution_error":
                raise node_failure(message.data)
            case "execution_interrupted":
                raise Interrupted
            case "executing" if message.data.get("node") is None:
                return await self._server.record(self.prompt_id)
            case "execution_success":
                return await self._server.record(self.prompt_id)
            case _:
                await self._progress.take(message)
        return None

    async def follow_again(self) -> Record:
        """The connection ended in the middle of a run: find out whether the run goes on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + GONE_S
        while True:
            try:
                if record := await self._server.record(self.prompt_id):
                    return record
                await self._server.still_there(self.prompt_id)
                async with self._server.listen(self._client_id) as socket:
                    if record := await self.follow(socket):
                        return record
                deadline = loop.time() + GONE_S
            except NETWORK:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(RECONNECT_S)
