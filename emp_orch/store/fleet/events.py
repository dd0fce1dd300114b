"""The `events` stream: every change, capped; readers follow it and resume by id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.store.redis.client import Client, blocking
from emp_orch.store.redis.damaged import DAMAGED, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined

MAX_EVENTS = 10_000
# What a box was refused at the API's gate.
GATE_REFUSED = "gate_refused"

Entries = list[tuple[str, dict[str, str]]]


class Event(Struct, frozen=True, kw_only=True):
    """`id` is the stream id (`ms-seq`): its first part is when, by Redis' clock. `data` always repeats `type`."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def at_ms(self) -> int:
        return int(self.id.split("-", 1)[0])


_data = decoder(dict[str, Any])


def decode(entry_id: str, fields: dict[str, str]) -> Event:
    """An entry of the stream; one that does not fit is shown as `malformed`, never raised."""
    try:
        data = _data(fields["data"])
        return Event(id=entry_id, type=fields["type"], data=data)
    except (KeyError, *DAMAGED) as e:
        return Event(id=entry_id, type="malformed", data={"type": "malformed", "error": str(e)})


class Events:
    """Append to and follow the stream."""

    def __init__(self, r: Client, keys: Keys, line: Pipelined | None = None) -> None:
        """`line`: what `since` waits on; without it, on a connection of the client's."""
        self._r = r
        self._keys = keys
        self._line = line

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Events]:
        """The same, for who follows: on a connection of its own, beside the client's.

        redis-py's client does more around a command than is done for the few events that it brings.
        """
        line = Pipelined(self._r)
        try:
            yield Events(self._r, self._keys, line)
        finally:
            await line.aclose()

    async def append(self, type_: str, **data: Any) -> str:
        """Publish one event; returns its id."""
        fields = encode(type_, data)
        return str(await self._r.xadd(self._keys.events, cast(Any, fields), maxlen=MAX_EVENTS, approximate=True))

    async def append_machine(self, type_: str, **data: Any) -> None:
        """Publish a machine event to the stream and to `machine:startup:events`."""
        fields = encode(type_, data)
        async with self._r.pipeline(transaction=True) as pipe:
            pipe.xadd(self._keys.events, cast(Any, fields), maxlen=MAX_EVENTS, approximate=True)
            pipe.publish(self._keys.startup_channel, fields["data"])
            await pipe.execute()

    async def latest_id(self) -> str:
        """The id to follow from so as to see only what comes."""
        entries = await self._r.xrevrange(self._keys.events, count=1)
        return str(entries[0][0]) if entries else "0-0"

    async def recent(self, count: int) -> list[Event]:
        """The last `count` events, oldest first."""
        entries = cast(Entries, await self._r.xrevrange(self._keys.events, count=count))
        return [decode(i, f) for i, f in reversed(entries)]

    async def since(self, after: str, *, count: int = 500, block_ms: int | None = None) -> list[Event]:
        """Events after id `after`; waits up to `block_ms` for the first. Raises TimeoutError at silence."""
        async with blocking(block_ms or 0):
            if self._line is None:
                entries = entries_of(await self._r.xread({self._keys.events: after}, count=count, block=block_ms))
            else:
                wait = () if block_ms is None else ("BLOCK", block_ms)
                asked = ("XREAD", "COUNT", count, *wait, "STREAMS", self._keys.events, after)
                entries = _raw_entries_of(await self._line.call(*asked))
        return [decode(i, f) for i, f in entries]

    async def oldest_id(self) -> str:
        """The first id still kept; a reader that resumes before it has missed something."""
        entries = await self._r.xrange(self._keys.events, count=1)
        return str(entries[0][0]) if entries else "0-0"

    async def follow(self, after: str, *, block_ms: int = 15_000, pause_s: float = 0) -> AsyncIterator[list[Event]]:
        """Batches of events for ever, an empty one whenever `block_ms` passed in silence, `pause_s` between two."""
        while True:
            batch = await self.since(after, block_ms=block_ms)
            if batch:
                after = batch[-1].id
            yield batch
            if pause_s:
                await asyncio.sleep(pause_s)


def entries_of(answer: Any) -> Entries:
    """The entries of an XREAD of one stream: redis-py answers with lists under RESP2, a dict under RESP3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (chunks,) = answer.values()
        return [entry for chunk in chunks for entry in chunk]
    return cast(Entries, answer[0][1])


def _raw_entries_of(answer: Any) -> Entries:
    """As `entries_of`, of what Redis itself answers: each entry's fields in a row."""
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    return [(i, dict(zip(f[::2], f[1::2], strict=True))) for _, rows in streams for i, f in rows]


def encode(type_: str, data: Mapping[str, Any]) -> dict[str, str]:
    """An entry of the stream: its type, then its data."""
    return {"type": type_, "data": msgspec.json.encode({"type": type_, **data}).decode()}
