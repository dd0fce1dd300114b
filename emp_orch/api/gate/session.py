"""One connection of a box: what comes is judged, carried out or refused, and answered in the order in which it came."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import WSMsgType, web
from redis import exceptions as rexc

from emp_orch.api.context import Context
from emp_orch.api.gate.budgets import Budgets
from emp_orch.api.gate.line import Line
from emp_orch.api.gate.refusals import Refusals
from emp_orch.api.gate.requests import NoRequest, Requests
from emp_orch.jobs.document.states import HELD
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.plaintext import one_line
from emp_orch.store.acl.stranger_rules import (
    Answer,
    Box,
    Lanes,
    NotAllowed,
    Pass,
    PassIfHeld,
    PassIfOffers,
    PassIfServed,
    Verdict,
    Words,
)
from emp_orch.store.acl.strangers import Strangers
from emp_orch.store.queue.offers import unpacked
from emp_orch.store.redis.client import within
from emp_orch.store.redis.damaged import decoder
from emp_orch.web.rate import Rate

log = logging.getLogger(__name__)

# Commands of one connection: who sends more waits.
COMMANDS, COMMANDS_PER_S = 2_000, 1_000.0
MAX_COMMAND_NAME = 40
_requirements = decoder(Requirements)


class ShutOut(Exception):
    """This connection is to end; the text says why."""


class Shared:
    """What the sessions of all boxes share."""

    def __init__(self, ctx: Context) -> None:
        self.strangers = Strangers(ctx.keys)
        self.refusals = Refusals(ctx.events, ctx.stats)
        self.budgets = Budgets()


class Session:
    """`box` gives whose it is, as of now."""

    def __init__(self, ctx: Context, ws: web.WebSocketResponse, box: Callable[[], Box], shared: Shared) -> None:
        self._ctx = ctx
        self._ws = ws
        self._box = box
        self._strangers, self._refusals, self._budgets = shared.strangers, shared.refusals, shared.budgets
        self._requests = Requests()
        self._rate = Rate(burst=COMMANDS, per_s=COMMANDS_PER_S)
        self._queued: int | None = None  # so many within a transaction
        self.line = Line(ctx.redis, ws.send_bytes)

    async def read(self) -> None:
        """Until the box goes, or is shut out."""
        async for received in self._ws:
            if received.type is not WSMsgType.BINARY:
                return
            try:
                for words in self._requests.feed(received.data):
                    await self._one(words)
            except NoRequest as e:
                await self._answer(f"-ERR Protocol error: {e}\r\n".encode())
                await self._refused(b"?", str(e))
                return
            except ShutOut as e:
                await self._ws.close(code=1008, message=str(e).encode())
                return

    async def _one(self, words: Words) -> None:
        wait_s = self._rate.owe(asyncio.get_running_loop().time(), 1)
        wait_s += self._budgets.wait_s(self._box().machine_id, sum(map(len, words)))
        if wait_s:
            await asyncio.sleep(wait_s)
        try:
            verdict = self._strangers.judge(words, self._box(), queued=self._queued)
            await self._carry_out(verdict)
        except NotAllowed as e:
            name = one_line(words[0][:MAX_COMMAND_NAME].decode("utf-8", "replace")).lower()
            await self._answer(f"-NOPERM this machine has no permissions to run the '{name}' command: {e}\r\n".encode())
            await self._refused(words[0], str(e))
            return
        match words[0].upper():
            case b"MULTI":
                self._queued = 0
            case b"EXEC" | b"DISCARD":
                self._queued = None
            case _ if self._queued is not None:
                self._queued += 1

    async def _refused(self, command: bytes, why: str) -> None:
        name = one_line(command[:MAX_COMMAND_NAME].decode("utf-8", "replace")).upper()
        if await self._refusals.note(self._box().machine_id, name, why):
            raise ShutOut("it was refused too often")

    async def _carry_out(self, verdict: Verdict) -> None:
        match verdict:
            case Pass():
                if verdict.model and not self._budgets.has_model(self._box().machine_id, verdict.model):
                    raise NotAllowed("it names more models than a machine runs in an hour")
                if verdict.costly and not self._budgets.has_costly(self._box().machine_id):
                    raise NotAllowed("it gives back more claims than a machine loses")
                await self.line.ask(verdict.words)
            case Answer():
                await self._answer(verdict.reply)
            case PassIfHeld():
                if await self._holds(verdict):
                    await self.line.ask(verdict.words)
                else:
                    await self._answer(verdict.answer)
            case PassIfServed():
                await self.line.ask(await self._served(verdict))
            case PassIfOffers():
                if not self._budgets.offers(self._box().machine_id, len(verdict.text)):
                    raise NotAllowed("it leaves more documents than the services of a machine offer")
                found = await asyncio.to_thread(unpacked, verdict.text, verdict.digest)
                if found is None:
                    raise NotAllowed("it is not the document of its digest")
                await self.line.ask(verdict.words)
            case Lanes():
                await self._answer(await self._lanes(verdict.words))

    async def _answer(self, reply: bytes) -> None:
        """After all answers to what came before."""
        await self.line.silence()
        await self._ws.send_bytes(reply)

    async def _call(self, *words: Any) -> Any:
        async with within():
            return await self._ctx.line.call(*words)

    async def _holds(self, asked: PassIfHeld) -> bool:
        await self.line.silence()  # what came before may give the job back
        found = await self._call("HMGET", self._ctx.keys.job(asked.job_id), "status", "worker_id", "at")
        status, worker, at = (value or "" for value in found)
        lane = str(at).rpartition("|")[2]
        return status in HELD and worker in self._box().workers and asked.lane in ("", lane)

    async def _served(self, asked: PassIfServed) -> Words:
        """Its words, without the lanes that are none any more: they may be made anew before it is carried out."""
        if not self._budgets.has_class(self._box().machine_id, asked.name):
            raise NotAllowed("it is of more classes than a machine is in an hour")
        if not asked.lanes:
            return asked.words
        await self.line.silence()
        texts = await self._call("HMGET", self._ctx.keys.lanes, *asked.lanes)
        if not all(text is None or self._serves(text) for text in texts):
            raise NotAllowed("one of the lanes is of a service that the machine does not have")
        first = len(asked.words) - len(asked.lanes)
        known = (word for word, text in zip(asked.words[first:], texts, strict=True) if text is not None)
        return (*asked.words[:first], *known)

    async def _lanes(self, words: Words) -> bytes:
        """The answer to new_lanes.lua, without the lanes of other services."""
        await self.line.silence()
        try:
            known, version, *pairs = await self._call(*words)
        except rexc.NoScriptError:
            return b"-NOSCRIPT No matching script.\r\n"
        kept = [p for p in zip(pairs[::2], pairs[1::2], strict=True) if self._serves(p[1])]
        texts = [str(t).encode() for t in (known, version, *(word for pair in kept for word in pair))]
        return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(t), t) for t in texts)

    def _serves(self, requirements: str) -> bool:
        try:
            return _requirements(requirements).service in self._box().services
        except msgspec.MsgspecError:
            return False
