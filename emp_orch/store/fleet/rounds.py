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
from emp_orch.fleet.policy.memory import Memory, holds_together
from emp_orch.fleet.round import Inputs
from emp_orch.seals import Forged, Seal, for_memory
from emp_orch.store.fleet import fencing
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, MAX_FLEET_BYTES, KeyDamaged, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

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


_memory = decoder(Memory, MAX_FLEET_BYTES)
_recorded = msgspec.msgpack.Decoder(Recorded)


async def read_memory(r: Client, keys: Keys, fleet: str, seal: Seal) -> Memory | None:
    """What the last leader remembered; None when there was none, it cannot be read, or no leader wrote it."""
    try:
        text = await r.getrange(keys.memory(fleet), 0, MAX_FLEET_BYTES)
        found = _memory(seal.opened(for_memory(fleet), text, keys.memory(fleet))) if text else None
    except (KeyDamaged, Forged, *DAMAGED):
        return None  # the next round writes it anew
    return found if found is not None and holds_together(found) else None


_REMEMBER = script("fleet/write")


async def write_memory(r: Client, keys: Keys, mandate: Mandate, memory: Memory, seal: Seal) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    text = seal.sealed(for_memory(mandate.fleet), msgspec.json.encode(memory))
    await fencing.write(r, keys, mandate, _REMEMBER, to=[keys.memory(mandate.fleet)], args=[text])


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


_RECORD = script("fleet/record")


async def record(r: Client, keys: Keys, mandate: Mandate, packed: str) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    args: list[str | bytes | int] = [MAX_ROUNDS, packed, __version__]
    await fencing.write(r, keys, mandate, _RECORD, to=[keys.rounds(mandate.fleet)], args=args)


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
