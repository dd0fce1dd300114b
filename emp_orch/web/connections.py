"""How many connections a server holds, and from whom: one caller must not take those of others, nor the process' files.

What is beyond is closed as it comes. A connection that asks nothing is closed after IDLE_S, which aiohttp does.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from typing import Any

from aiohttp import web

from emp_orch.web.guard import is_loopback

log = logging.getLogger(__name__)

# A connection on which nothing is asked; also one whose first request never becomes whole.
IDLE_S = 60.0
# From one address; of this host, where proxies and pages stand before many people.
MOST, MOST_HERE = 500, 4_000
# Of the files that the process may open, left for all else.
KEPT_BACK = 128
TOLD_EVERY_S = 60.0


class Connections:
    """Counts those of one server by their address."""

    def __init__(self, most: int, most_here: int, in_all: int) -> None:
        self._most, self._most_here, self._in_all = most, most_here, in_all
        self._from: Counter[str] = Counter()
        self._of: dict[object, str | None] = {}  # None: it counts with no address
        self._refused = 0
        self._told_at_s = -TOLD_EVERY_S

    def came(self, handler: object, address: str) -> bool:
        """Whether it may stay."""
        self._of[handler] = address
        self._from[address] += 1
        most = self._most_here if is_loopback(address) or not address else self._most
        if self._from[address] <= most and len(self._of) <= self._in_all:
            return True
        self._refused += 1
        return False

    def went(self, handler: object) -> None:
        address = self._of.pop(handler, None)
        if address is not None:
            self._from[address] -= 1
            if not self._from[address]:
                del self._from[address]

    def known(self, handler: object) -> None:
        """It is of somebody whose connections are bounded by who that is: it counts no more as one of its address, so
        that a thousand boxes may come through one proxy.
        """
        if handler in self._of:
            self.went(handler)
            self._of[handler] = None

    def to_tell(self, now_s: float) -> str:
        """What is to be logged now; empty when it was, a moment ago."""
        if now_s - self._told_at_s < TOLD_EVERY_S:
            return ""
        count, self._refused, self._told_at_s = self._refused, 0, now_s
        address, most = self._from.most_common(1)[0]
        return f"{count} connections were turned away: {len(self._of)} are open, {most} of them from {address or '?'}"


CONNECTIONS = web.AppKey("connections", Connections)


def connections() -> Connections:
    """For all servers of this process."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_all = max(1, files - KEPT_BACK) if files != resource.RLIM_INFINITY else 1 << 30
    return Connections(MOST, MOST_HERE, in_all)


def limit(server: web.Server, held: Connections) -> None:
    """Let `server` hold no more than `held` allows."""
    made, lost = server.connection_made, server.connection_lost

    def connection_made(handler: Any, transport: asyncio.Transport) -> None:
        made(handler, transport)
        peer = transport.get_extra_info("peername")
        if not held.came(handler, str(peer[0]) if isinstance(peer, tuple) else ""):
            transport.abort()
            if words := held.to_tell(asyncio.get_running_loop().time()):
                log.warning("%s", words)

    def connection_lost(handler: Any, exc: BaseException | None = None) -> None:
        held.went(handler)
        lost(handler, exc)

    server.connection_made = connection_made  # type: ignore[method-assign]
    server.connection_lost = connection_lost  # type: ignore[method-assign]
