"""Following one run to its end, by the service's messages and, where they are lost, by its history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec

from emp_orch.connectors import base
from emp_orch.connectors.base import MALFORMED, RunFailed
from emp_orch.connectors.comfyui.run.attempt import SENDS_PICTURES, Attempt
from emp_orch.connectors.comfyui.run.progress import Costs, ProgressOfRun
from emp_orch.connectors.comfyui.run.record import Told
from emp_orch.connectors.comfyui.server.protocol import Interrupted, Message, Record, node_failure, picture_of
from emp_orch.connectors.comfyui.server.requests import Server
from emp_orch.connectors.http.client import NETWORK
from emp_orch.jobs.document.preview import MAX_PREVIEW_BYTES

# Without a message for so long, the history is looked at: a message can be lost with a connection.
SILENCE_S = 5.0
RECONNECT_S = 0.5
# Previews are passed on at most so often.
PREVIEW_EVERY_S = 0.25

_OVER = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)


class Follower:
    """The run of one attempt. `failure`: what a node failed of; the record that follows says what there is all the
    same. `unheard`: its end was not told, and found by asking. `note` is given every message of the socket.
    """

    def __init__(
        self, server: Server, attempt: Attempt, costs: Costs, note: Callable[[Message], None] = lambda message: None
    ) -> None:
        self.failure: RunFailed | None = None
        self.unheard = False
        self._note = note
        self._told = Told(attempt.workflow)
        self._server = server
        self._attempt = attempt
        self._progress = ProgressOfRun(attempt.workflow, attempt.run.progress, costs)
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._node = ""
        self._previewed = float("-inf")

    @property
    def prompt_id(self) -> str:
        return self._attempt.prompt_id

    def attach(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def wake(self) -> None:
        """Have `follow` look at the history now: nobody will tell of the run any more."""
        if self._socket is not None:
            await self._socket.close()

    async def follow(self, socket: aiohttp.ClientWebSocketResponse) -> Record | None:
        """Pass progress on until the run is over; its record. None: the connection ended before."""
        self.attach(socket)
        while True:
            try:
                got = await socket.receive(timeout=SILENCE_S)
            except TimeoutError:
                if record := await self._server.record(self.prompt_id):
                    self.unheard = True
                    return record
                await self._server.still_there(self.prompt_id)
                continue
            if got.type in _OVER:
                return None
            if got.type is aiohttp.WSMsgType.BINARY:
                await self._see(got.data)
            if got.type is not aiohttp.WSMsgType.TEXT:
                continue
            try:
                message = msgspec.json.decode(got.data, type=Message)
            except MALFORMED:
                continue  # another extension's message
            self._note(message)
            if message.data.get("prompt_id") == self.prompt_id and (record := await self._take(message)):
                return record

    async def _take(self, message: Message) -> Record | None:
        if not self._attempt.cut and (record := self._told.take(message)) is not None:
            await self._progress.over()
            return record
        match message.type:
            case "execution_error":
                self.failure = node_failure(message.data)
            case "execution_interrupted":
                raise Interrupted
            case "executing" if message.data.get("node") is None:
                self._node = ""
                await self._progress.over()
                return await self._server.record(self.prompt_id)
            case "execution_success":
                return await self._server.record(self.prompt_id)
            case _:
                if message.type == "executing":
                    self._node = str(message.data.get("node"))
                await self._progress.take(message)
        return None

    async def _see(self, frame: bytes) -> None:
        """A picture over the socket: an output where a node sends those, else a preview."""
        picture = picture_of(frame)
        if picture is None or not self._node:
            return
        kind, data = picture
        if self._attempt.class_of(self._node) == SENDS_PICTURES:
            await self._attempt.take_picture(self._node, kind, data)
            return
        now = asyncio.get_running_loop().time()
        if now - self._previewed >= PREVIEW_EVERY_S and len(data) <= MAX_PREVIEW_BYTES:
            self._previewed = now
            await self._attempt.run.preview(kind, data)

    async def follow_again(self) -> Record:
        """The connection ended in the middle of a run: find out whether the run goes on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + base.GONE_S
        self._attempt.cut = True
        while True:
            try:
                if record := await self._server.record(self.prompt_id):
                    return record
                await self._server.still_there(self.prompt_id)
                async with await self._server.listen(self._attempt.client_id) as socket:
                    if record := await self.follow(socket):
                        return record
                deadline = loop.time() + base.GONE_S
            except NETWORK:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(RECONNECT_S)
