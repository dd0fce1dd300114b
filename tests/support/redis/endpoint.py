"""An address that leads to one server, then to another: a managed failover, or a link that is slow and breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Endpoint:
    """New connections lead to `leads_to`; those that stand stay where they are.

    `delay_s`: how late what comes back arrives. After `cut` what is under way is lost. `counted`: how often
    `counts` came, each time in one piece.
    """

    def __init__(self, leads_to: int, *, delay_s: float = 0.0, counts: bytes = b"") -> None:
        self.leads_to = leads_to
        self.port = 0
        self.url = ""
        self.counted = 0
        self._counts = counts
        self._delay_s = delay_s
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Endpoint]:
        tasks = set[asyncio.Task[None]]()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection("127.0.0.1", self.leads_to)
            for source, sink, delay_s in ((reader, there[1], 0.0), (there[0], writer, self._delay_s)):
                tasks.add(asyncio.create_task(self._pump(source, sink, delay_s)))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        try:
            yield self
        finally:
            server.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
        try:
            with suppress(OSError):
                while data := await reader.read(65_536):
                    await asyncio.sleep(delay_s)
                    self.counted += data.count(self._counts) if self._counts else 0
                    if self._is_cut:
                        break
                    writer.write(data)
                    await writer.drain()
        finally:
            writer.close()
