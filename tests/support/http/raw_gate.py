"""A connection at the gate, in Redis' own protocol, without a client in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import hiredis

from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.acl.strangers import digests
from support.http.gate import MINE, GateLab

# Of a lease, and of workers.
TOKEN = "0123456789abcdef"
CLASS = "fedcba9876543210"
ANSWER_S = 30.0


class Raw:
    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._reader = hiredis.Reader(notEnoughData=self)

    async def send(self, *commands: tuple[Any, ...]) -> None:
        """All of them at once."""
        pack: Any = hiredis.pack_command
        await self._ws.send_bytes(b"".join(pack(words) for words in commands))

    async def reply(self) -> Any:
        async with asyncio.timeout(ANSWER_S):
            while (found := self._reader.gets()) is self:
                self._reader.feed(await self._ws.receive_bytes())
        return found

    async def ask(self, *words: Any) -> Any:
        await self.send(words)
        return await self.reply()


@asynccontextmanager
async def raw(lab: GateLab, member: str = MINE) -> AsyncIterator[Raw]:
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {lab.token(member)}"}) as http,
        http.ws_connect(f"{lab.stack.api}{GATE_PATH}", max_msg_size=0) as ws,
    ):
        yield Raw(ws)


def script(lab: GateLab, name: str, *args: Any) -> tuple[Any, ...]:
    return ("EVALSHA", next(d for d, n in digests(lab.keys).items() if n == name), 0, *args)
