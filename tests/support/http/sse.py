"""Reads the API's streams in tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from emp_orch.monitor.sse_client import Parser, ServerSentEvent


class Reader:
    """The events of one open stream, one by one; `raw` is all that came."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._parser = Parser()
        self._ready: list[ServerSentEvent] = []
        self.raw = b""

    async def next(self, deadline_s: float = 20) -> ServerSentEvent:
        async with asyncio.timeout(deadline_s):
            while not self._ready:
                chunk = await self._response.content.readany()
                if not chunk:
                    raise EOFError
                self.raw += chunk
                self._ready += self._parser.feed(chunk)
        return self._ready.pop(0)

    async def until(
        self, wanted: Callable[[ServerSentEvent, Any], bool], deadline_s: float = 20
    ) -> tuple[ServerSentEvent, Any]:
        async with asyncio.timeout(deadline_s):
            while True:
                event = await self.next(deadline_s)
                data = json.loads(event.data)
                if wanted(event, data):
                    return event, data


@asynccontextmanager
async def stream(url: str, path: str = "/api/events/monitor", **headers: str) -> AsyncIterator[Reader]:
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url + path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.content_type == "text/event-stream"
        yield Reader(response)
