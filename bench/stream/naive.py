"""What emp is compared with: whenever something changed, at most four times a second, the whole state to every client.

It reads by emp's own reader, and encodes once for all: what is left to differ is that it sends everything.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
from aiohttp import web

from bench.reconcile.simulated import FLEET
from emp_orch.api.state import ApiStats, StateReader
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys

SPACING_S = 0.25


class Whole:
    def __init__(self, url: str) -> None:
        r, keys = client(url), Keys()
        self._events = Events(r, keys)
        self._reader = StateReader(r, keys, FLEET, Queue(r, keys), ApiStats())
        self._clients: set[asyncio.Queue[bytes]] = set()

    async def push(self) -> None:
        async for batch in self._events.follow(await self._events.latest_id()):
            if batch and self._clients:
                data = await self._message()
                for waiting in self._clients:
                    if waiting.empty():  # a client that is behind is told later states only
                        waiting.put_nowait(data)
                await asyncio.sleep(SPACING_S)

    async def _message(self) -> bytes:
        state = msgspec.json.encode({"revision": 0, "data": await self._reader.read()})
        return b"event: state\ndata: " + state + b"\n\n"

    async def stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        waiting: asyncio.Queue[bytes] = asyncio.Queue()
        waiting.put_nowait(await self._message())
        self._clients.add(waiting)
        try:
            while True:
                await response.write(await waiting.get())
        finally:
            self._clients.discard(waiting)


async def _up(_request: web.Request) -> web.Response:
    return web.Response()


async def _push(app: web.Application) -> None:
    app["pushing"] = asyncio.create_task(app["whole"].push())


def main(url: str, port: int) -> None:
    app = web.Application()
    app["whole"] = Whole(url)
    app.on_startup.append(_push)
    app.router.add_get("/", app["whole"].stream)
    app.router.add_get("/up", _up)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
