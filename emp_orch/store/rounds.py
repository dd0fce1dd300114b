"""`fleet:{name}:memory` and `:rounds`: what the leader remembers, and the inputs of the rounds in which it acted.

A recorded round is MessagePack, deflated, in base85: 1,000 machines take some ten kB, and text passes every client.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import AsyncIterator
from typing import cast

import msgspec
from msgspec import Struct

from emp_orch import __version__
from emp_orch.fleet.memory import Memory
from emp_orch.fleet.round import Inputs
from emp_orch.store import fence
from emp_orch.store.connect import Client
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.keys import Keys
from emp_orch.store.leader import Mandate

MAX_ROUNDS = 200
# Read at once.
AT_ONCE = 8
# What one record may hold when it is unpacked: 10,000 machines are about 40 MB.
MAX_RECORD_BYTES = 256 * 1024 * 1024


class Recorded(Struct, frozen=True, kw_only=True):
    """One round in which the leader acted: what it knew, what it planned, and the keys of what it began."""

    inputs: Inputs
    plan: tuple[str, ...]
    run: tuple[str, ...]


class Kept(Struct, frozen=True, kw_only=True):
    """A record as it stands in Redis: `id` is its stream id, `version` that of the emp that wrote it, `round` None when
    this one cannot read it."""

    id: str
    version: str
    round: Recorded | None

    @property
    def at_ms(self) -> int:
        return int(self.id.split("-", 1)[0])


_memory = msgspec.json.Decoder(Memory)
_recorded = msgspec.msgpack.Decoder(Recorded)


async def read_memory(r: Client, keys: Keys, fleet: str) -> Memory | None:
    """What the last leader remembered; None when there was none, or it cannot be read."""
    text = await r.get(keys.memory(fleet))
    try:
        return None if text is None else _memory.decode(text)
    except DAMAGED:
        return None


# KEYS[3] the memory. ARGV[3] its text.
_REMEMBER = "redis.call('SET', KEYS[3], ARGV[3])"


async def write_memory(r: Client, keys: Keys, mandate: Mandate, memory: Memory) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    text = msgspec.json.encode(memory)
    await fence.write(
        r, keys, mandate, "redis.call('SET', KEYS[3], ARGV[3])", to=[keys.memory(mandate.fleet)], args=[text]
    )


def pack(recorded: Recorded) -> str:
    return base64.b85encode(zlib.compress(msgspec.msgpack.encode(recorded), 1)).decode()


def unpack(text: str) -> Recorded | None:
    """None for a text that is no record."""
    try:
        inflated = zlib.decompressobj()
        data = inflated.decompress(base64.b85decode(text), MAX_RECORD_BYTES)
        return None if inflated.unconsumed_tail else _recorded.decode(data)
    except (ValueError, zlib.error, *DAMAGED):
        return None


# KEYS[3] the rounds. ARGV[3] how many are kept, ARGV[4] the record, ARGV[5] the version of emp that wrote it.
_RECORD = "redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], '*', 'round', ARGV[4], 'version', ARGV[5])"


async def record(r: Client, keys: Keys, mandate: Mandate, packed: str) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    args: list[str | bytes | int] = [MAX_ROUNDS, packed, __version__]
    await fence.write(r, keys, mandate, _RECORD, to=[keys.rounds(mandate.fleet)], args=args)


async def recorded(r: Client, keys: Keys, fleet: str, count: int) -> AsyncIterator[Kept]:
    """The last `count` rounds, newest first. A few are held at a time: of a large fleet each is megabytes."""
    upto = "+"
    while count > 0:
        entries = cast(list[tuple[str, dict[str, str]]], await r.xrevrange(keys.rounds(fleet), upto, count=AT_ONCE))
        for entry_id, fields in entries[:count]:
            yield Kept(id=entry_id, version=fields.get("version", ""), round=unpack(fields.get("round", "")))
        if len(entries) < AT_ONCE:
            return
        count -= len(entries)
        upto = f"({entries[-1][0]}"
