"""A client of ComfyUI for tests, beside emp's connector: plain HTTP, and a WebSocket under an id of its own."""

from __future__ import annotations

import asyncio
import struct
import uuid
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from support.comfyui.service import ComfyService
from support.comfyui.workflows import Workflow
from support.redis.server import until

Make = Callable[..., ComfyService]
# For one file of some megabytes, on a busy machine.
VIEW_S = 20.0


class Client:
    """A client of one service, as emp's connector is one: HTTP, and a WebSocket under an id of its own."""

    def __init__(self, url: str) -> None:
        self.http = aiohttp.ClientSession(url)
        self.id = uuid.uuid4().hex

    async def get(self, path: str, **query: Any) -> Any:
        async with self.http.get(path, params=query) as answer:
            assert answer.status == 200, (path, answer.status)
            return await answer.json()

    async def post(self, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.post(path, json=body) as answer:
            text = await answer.read()
            return answer.status, msgspec.json.decode(text) if text.startswith((b"{", b"[")) else text

    async def queue(self, workflow: Workflow, **more: Any) -> tuple[int, dict[str, Any]]:
        return await self.post("/prompt", {"prompt": workflow, "client_id": self.id, **more})

    async def begin(self, workflow: Workflow, **more: Any) -> str:
        """Queue a workflow that is in order."""
        status, body = await self.queue(workflow, **more)
        assert status == 200, body
        prompt_id: str = body["prompt_id"]
        return prompt_id

    async def ended(self, prompt_id: str) -> dict[str, Any]:
        """The record of a prompt at its end."""

        async def look() -> Any:
            return (await self.get(f"/history/{prompt_id}")).get(prompt_id)

        found: dict[str, Any] = await until(look)
        return found

    async def run(self, workflow: Workflow, **more: Any) -> dict[str, Any]:
        return await self.ended(await self.begin(workflow, **more))

    async def running(self, prompt_id: str) -> None:
        """Wait until it runs."""

        async def look() -> bool:
            return [row[1] for row in (await self.get("/queue"))["queue_running"]] == [prompt_id]

        await until(look)

    async def begin_at(self, workflow: Workflow, node_id: str) -> str:
        """Queue a workflow, and wait until this node tells of its progress: it is at work then."""
        async with self.socket() as socket, asyncio.timeout(30):
            prompt_id = await self.begin(workflow)
            while True:
                got = await socket.receive()
                message = msgspec.json.decode(got.data) if got.type is aiohttp.WSMsgType.TEXT else {}
                if message.get("type") == "progress" and message["data"]["prompt_id"] == prompt_id:
                    assert message["data"]["node"] == node_id
                    return prompt_id

    async def view(self, file: dict[str, str]) -> bytes | None:
        """The file; None when there is none, or its end never comes: it was made shorter while it was sent."""
        try:
            async with asyncio.timeout(VIEW_S), self.http.get("/view", params=file) as answer:
                assert answer.status in (200, 404), answer.status
                return await answer.read() if answer.status == 200 else None
        except TimeoutError:
            return None

    def socket(self) -> Any:
        return self.http.ws_connect("/ws", params={"clientId": self.id}, max_msg_size=0)


class Heard:
    """What a socket told of one prompt: JSON messages, and pictures as (format, bytes)."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.frames: list[bytes] = []

    def types(self, *but: str) -> list[str]:
        return [type_ for type_, _ in self.messages if type_ not in ("status", "progress_state", *but)]

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [data for found, data in self.messages if found == type_]

    def pictures(self) -> list[tuple[int, bytes]]:
        """Of plain previews: the format (1 JPEG, 2 PNG) and the file."""
        plain = [frame for frame in self.frames if struct.unpack(">I", frame[:4]) == (1,)]
        return [(struct.unpack(">I", frame[4:8])[0], frame[8:]) for frame in plain]

    def pictures_with_metadata(self) -> list[tuple[dict[str, Any], bytes]]:
        found = []
        for frame in self.frames:
            if struct.unpack(">I", frame[:4]) == (4,):
                length = struct.unpack(">I", frame[4:8])[0]
                found.append((msgspec.json.decode(frame[8 : 8 + length]), frame[8 + length :]))
        return found


async def hear(socket: aiohttp.ClientWebSocketResponse, prompt_id: str) -> Heard:
    """Listen until the prompt is over."""
    heard = Heard()
    async with asyncio.timeout(30):
        while True:
            got = await socket.receive()
            if got.type is aiohttp.WSMsgType.BINARY:
                heard.frames.append(got.data)
            elif got.type is aiohttp.WSMsgType.TEXT:
                message = msgspec.json.decode(got.data, type=dict[str, Any])
                heard.messages.append((message["type"], message["data"]))
                data = message["data"]
                if message["type"] == "executing" and data["node"] is None and data.get("prompt_id") == prompt_id:
                    return heard
            else:
                raise AssertionError(f"the socket ended: {got.type}")
