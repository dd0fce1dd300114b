"""`fleet:{name}:journal`: the durable record of drift, operations and outcomes. Capped."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from emp_orch.store.fleet import fencing
from emp_orch.store.fleet.events import Event, decode, encode
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

MAX_ENTRIES = 20_000
# Entries of one script or command: nobody else is served meanwhile. A filter may pass over many; the journal's cap
# bounds how many commands that takes.
AT_ONCE = 500

_APPEND = script("fleet/append")


async def write(r: Client, keys: Keys, mandate: Mandate, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """Append entries (type, data) in order. Raises NotLeader when `mandate` does not stand any more."""
    for start in range(0, len(entries), AT_ONCE):
        written = [encode(type_, msgspec.to_builtins(data)) for type_, data in entries[start : start + AT_ONCE]]
        texts = [text for fields in written for text in (fields["type"], fields["data"])]
        args: list[str | bytes | int] = [MAX_ENTRIES, *texts]
        await fencing.write(r, keys, mandate, _APPEND, to=[keys.journal(mandate.fleet)], args=args)


async def note(r: Client, keys: Keys, fleet: str, type_: str, data: dict[str, Any]) -> None:
    """Append one entry, of who does not lead: something that happened, and no decision."""
    fields = cast(Any, encode(type_, data))
    await r.xadd(keys.journal(fleet), fields, maxlen=MAX_ENTRIES, approximate=True)


async def recent(r: Client, keys: Keys, fleet: str, count: int) -> list[Event]:
    """The last `count` entries, oldest first."""
    entries = cast(list[tuple[str, dict[str, str]]], await r.xrevrange(keys.journal(fleet), count=count))
    return [decode(i, f) for i, f in reversed(entries)]
