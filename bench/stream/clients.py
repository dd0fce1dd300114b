"""Many clients of one event stream in one process: what came, how late, and whether anything was missed."""

from __future__ import annotations

import asyncio
import json
import re
import time
import zlib
from typing import Any, ClassVar
from urllib.parse import urlsplit

from msgspec import Struct

from bench.queue.measure import quantile
from bench.reconcile.children import questions, reply

JOIN_S = 120.0
SEEN_S = 20.0
_GZIP = b"\x1f\x8b"
# How a part of emp's stream ends (api/stream/gzipped.py).
_PART_END = b"\x00\x00\xff\xff"
_STAMP = re.compile(rb'"package":"at (\d+)"')
_REVISION = re.compile(rb'"revision":(\d+),"base":(\d+)')
_FIRST = re.compile(rb'"revision":(\d+)')


class _Delta(Struct):
    """What a delta says to a client: revisions, and when each change in it was made."""

    revision: int
    base: int
    stamps: list[int]


class Client:
    """One connection. Only of those that `look` the events are looked into; the others count bytes."""

    # All clients are sent the same: each is unpacked and looked into once.
    known: ClassVar[dict[bytes, _Delta]] = {}
    parts: ClassVar[dict[bytes, bytes]] = {}

    def __init__(self, *, look: bool) -> None:
        self.look = look
        self.begun = asyncio.Event()
        self.bytes = 0
        self.gaps = 0
        self.snapshots = 0
        self.deltas = 0
        self.last = 0
        self.late_ns: list[int] = []
        self._revision: int | None = None
        self._rest = bytearray()
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._between = True
        self._from_ns = 0

    def restart(self) -> None:
        """Count from now on."""
        self.bytes = self.deltas = self.gaps = self.snapshots = 0
        self.late_ns = []
        self._from_ns = time.monotonic_ns()

    async def run(self, url: str, path: str) -> None:
        at = urlsplit(url)
        reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=1 << 20)
        asked = f"GET {path} HTTP/1.1\r\nHost: {at.netloc}\r\nAccept-Encoding: gzip\r\n\r\n"
        writer.write(asked.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        packed = b"content-encoding: gzip" in head.lower()
        try:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                data = (await reader.readexactly(size + 2))[:-2]
                self.bytes += size
                if self.look:
                    self._take(self._unpacked(data) if packed else data)
                else:
                    self.begun.set()
        finally:
            writer.close()

    def _unpacked(self, data: bytes) -> bytes:
        """A part that came whole is the same for all, and unpacked once; a piece of one goes through our own stream."""
        whole = self._between and data.endswith(_PART_END)
        self._between = data.endswith(_PART_END)
        if not whole or data.startswith(_GZIP):
            return self._unpacker.decompress(data)
        plain = self.parts.get(data)
        if plain is None:
            if len(self.parts) > 256:
                self.parts.clear()
            plain = self.parts[data] = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
        return plain

    def _take(self, data: bytes) -> None:
        searched = max(0, len(self._rest) - 1)
        self._rest += data
        while (end := self._rest.find(b"\n\n", searched)) >= 0:
            event = bytes(self._rest[:end])
            del self._rest[: end + 2]
            searched = 0
            at = event.find(b"event: ")
            if event.startswith(b"delta\n", at + 7):
                self._delta(event[at:])
            elif event.startswith(b"full_state_snapshot\n", at + 7):
                self._snapshot(event[at:])
            elif event.startswith(b"state\n", at + 7):
                self._state(event)

    def _snapshot(self, event: bytes) -> None:
        self.snapshots += 1
        found = _FIRST.search(event[:200])
        self._revision = int(found[1]) if found else None
        self.begun.set()

    def _state(self, event: bytes) -> None:
        now_ns = time.monotonic_ns()
        # A stream of whole states tells each change again and again: it counts when it is told first.
        stamps = [int(s) for s in _STAMP.findall(event)]
        self.late_ns += [now_ns - s for s in stamps if s > self.last and s > self._from_ns]
        self.last = max([self.last, *stamps])
        self.begun.set()

    def _delta(self, event: bytes) -> None:
        now_ns = time.monotonic_ns()
        delta = self.known.get(event)
        if delta is None:
            found = _REVISION.search(event)
            assert found, event[:200]
            delta = _Delta(int(found[1]), int(found[2]), [int(s) for s in _STAMP.findall(event)])
            if len(self.known) > 256:
                self.known.clear()
            self.known[event] = delta
        self.deltas += 1
        self.gaps += delta.base != self._revision
        self._revision = delta.revision
        self.late_ns += [now_ns - s for s in delta.stamps if s > self._from_ns]
        self.last = max([self.last, *delta.stamps])


class Crowd:
    """Clients that joined together."""

    def __init__(self, url: str, path: str, count: int, looking: int) -> None:
        self.clients = [Client(look=number < looking) for number in range(count)]
        self._tasks = [asyncio.create_task(c.run(url, path)) for c in self.clients]

    async def joined(self) -> float:
        """Seconds until the last one has the whole state."""
        began = time.monotonic()
        async with asyncio.timeout(JOIN_S):
            for client in self.clients:
                await client.begun.wait()
        return time.monotonic() - began

    async def said(self, changes: int) -> dict[str, Any]:
        """What came since they were counted anew; waits a while until each that looks has been told `changes`."""
        looking = [c for c in self.clients if c.look]
        deadline = time.monotonic() + SEEN_S
        while any(len(c.late_ns) < changes for c in looking) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        late = sorted(ns / 1e6 for c in looking for ns in c.late_ns) or [0.0]
        return {
            "p50_ms": quantile(late, 0.5),
            "p99_ms": quantile(late, 0.99),
            "least_told": min(len(c.late_ns) for c in looking),
            "gaps": sum(c.gaps for c in looking),
            "snapshots": sum(c.snapshots for c in looking),
            "deltas": max(c.deltas for c in looking),
            "bytes": sum(c.bytes for c in self.clients),
        }

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def main() -> None:
    crowd: Crowd | None = None
    async for asked in questions():
        match asked["do"]:
            case "join":
                crowd = Crowd(asked["url"], asked["path"], asked["clients"], asked["looking"])
                reply(joined_s=await crowd.joined())
            case "begin" if crowd:
                for client in crowd.clients:
                    client.restart()
                reply(begun=True)
            case "said" if crowd:
                reply(**await crowd.said(asked["changes"]))
            case "leave" if crowd:
                await crowd.leave()
                reply(left=True)
            case other:
                raise SystemExit(f"bench: nobody to {json.dumps(other)}")


if __name__ == "__main__":
    asyncio.run(main())
