"""`fleet:{name}:journal`: the durable record of drift, operations and outcomes. Capped."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from emp_orch.store.connect import Client
from emp_orch.store.events import Event, decode, encode
from emp_orch.store.keys import Keys

MAX_ENTRIES = 20_000


async def write(r: Client, keys: Keys, fleet: str, entries: list[tuple[str, dict[str, Any]]]) -> None:
    """Append entries (type, data) in order, in one round trip."""
    if not entries:
        return
    async with r.pipeline(transaction=False) as pipe:
        for type_, data in entries:
            fields = cast(Any, encode(type_, msgspec.to_builtins(data)))
            pipe.xadd(keys.journal(fleet), fields, maxlen=MAX_ENTRIES, approximate=True)
        await pipe.execute()


async def recent(r: Client, keys: Keys, fleet: str, count: int) -> list[Event]:
    """The last `count` entries, oldest first."""
    entries = cast(list[tuple[str, dict[str, str]]], await r.xrevrange(keys.journal(fleet), count=count))
    return [decode(i, f) for i, f in reversed(entries)]
