"""A connection to Redis that carries what a box asked, as bytes, and counts the answers that are still to come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import hiredis

from emp_orch.store.redis.client import Client

log = logging.getLogger(__name__)

READ_BYTES = 65_536
# Asked and not answered: more wait until some are. Redis keeps the answers of who takes none, a payload each at worst;
# it is near, so that few at once are as fast as many.
MOST_ASKED = 8


class Line:
    """One connection of its own, as the pool of `r` makes them: also left with all others when the primary is another.

    `tell` is given what Redis answers, as it comes.
    """

    def __init__(self, r: Client, tell: Callable[[bytes], Awaitable[None]]) -> None:
        pool: Any = r.connection_pool
        self._made: Any = pool.make_connection()
        self._made.protocol = 2  # as a connection begins: the box says itself which it speaks
        self._tell = tell
        self._asked = 0
        self._fewer = asyncio.Condition()
        # Only to see where answers end: what they hold is not ours. False is an answer, of the third protocol.
        self._answers = hiredis.Reader(notEnoughData=self)

    async def connect(self) -> None:
        """Raises what redis-py raises."""
        await self._made.connect()

    async def ask(self, words: tuple[bytes, ...]) -> None:
        """Send one command, in the order of calls. Raises OSError."""
        if self._asked >= MOST_ASKED:
            async with self._fewer:
                await self._fewer.wait_for(lambda: self._asked < MOST_ASKED)
        self._asked += 1
        writer = self._made._writer
        if writer is None:
            raise ConnectionResetError("Redis is away")
        packed: Any = hiredis.pack_command
        writer.write(packed(words))
        await writer.drain()

    async def silence(self) -> None:
        """Until all that was asked is answered."""
        if self._asked:
            async with self._fewer:
                await self._fewer.wait_for(lambda: not self._asked)

    async def pump(self) -> None:
        """Hand on answers until the connection ends, or tells what was not asked for: from there on nobody knows what
        answers what.
        """
        reader = self._made._reader
        while data := await reader.read(READ_BYTES):
            self._answers.feed(data)
            ended = 0
            while self._answers.gets() is not self:
                ended += 1
            if ended > self._asked:
                log.warning("Redis told a box what it had not asked for: its connection ends")
                return
            await self._tell(data)
            if ended:
                async with self._fewer:
                    self._asked -= ended
                    self._fewer.notify_all()

    async def aclose(self) -> None:
        await self._made.disconnect(nowait=True)
