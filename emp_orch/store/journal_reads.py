"""Reading the journal: the last entries that fit a filter, a page at a time, or what comes. It only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

from msgspec import Struct

from emp_orch.fleet.chronicle import concerns, kind_of
from emp_orch.store.connect import Client
from emp_orch.store.events import Entries, Event, decode, entries_of
from emp_orch.store.journal import MAX_ENTRIES
from emp_orch.store.keys import Keys

# Entries of one command. A filter may pass over many; the journal's cap bounds how many commands that takes.
AT_ONCE = 500
BLOCK_MS = 15_000
# Longer than the cap: XADD trims by whole nodes of the stream.
MAX_SCANNED = MAX_ENTRIES + 1_000


class Wanted(Struct, frozen=True, kw_only=True):
    """Which entries. Empty fields let all pass. `kinds`: of drift, such as program-fatal."""

    since_ms: int = 0
    machine_id: str = ""
    types: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    subject: str = ""

    def fits(self, entry: Event) -> bool:
        if entry.at_ms < self.since_ms or (self.types and entry.type not in self.types):
            return False
        if self.kinds and kind_of(entry.data) not in self.kinds:
            return False
        return concerns(entry.data, self.machine_id, self.subject)


class Page(Struct, frozen=True, kw_only=True):
    """Entries, oldest first. `more`: what to ask for as `before` to get those before them; None at the beginning."""

    entries: tuple[Event, ...]
    more: str | None


async def page(r: Client, keys: Keys, fleet: str, wanted: Wanted, limit: int, *, before: str | None = None) -> Page:
    """The last `limit` entries that fit, of those before id `before`."""
    found: list[Event] = []
    upto = f"({before}" if before else "+"
    for _ in range(MAX_SCANNED // AT_ONCE + 1):
        texts = cast(Entries, await r.xrevrange(keys.journal(fleet), upto, str(wanted.since_ms), count=AT_ONCE))
        for entry_id, fields in texts:
            entry = decode(entry_id, fields)
            if wanted.fits(entry):
                if len(found) == limit:
                    return Page(entries=tuple(reversed(found)), more=found[-1].id if found else None)
                found.append(entry)
        if len(texts) < AT_ONCE:
            break
        upto = f"({texts[-1][0]}"
    return Page(entries=tuple(reversed(found)), more=None)


async def after(r: Client, keys: Keys, fleet: str, wanted: Wanted, limit: int, *, after: str) -> tuple[Event, ...]:
    """The first `limit` entries that fit, of those that follow id `after`."""
    found: list[Event] = []
    start = f"({after}"
    for _ in range(MAX_SCANNED // AT_ONCE + 1):
        texts = cast(Entries, await r.xrange(keys.journal(fleet), start, "+", count=AT_ONCE))
        found += [e for i, f in texts if wanted.fits(e := decode(i, f))]
        if len(texts) < AT_ONCE or len(found) >= limit:
            break
        start = f"({texts[-1][0]}"
    return tuple(found[:limit])


async def last_id(r: Client, keys: Keys, fleet: str) -> str:
    """The id to follow from so as to see only what comes."""
    entries = await r.xrevrange(keys.journal(fleet), count=1)
    return str(entries[0][0]) if entries else "0-0"


async def follow(r: Client, keys: Keys, fleet: str, wanted: Wanted, *, after: str) -> AsyncIterator[tuple[Event, ...]]:
    """What is written after id `after`, for ever, as Redis tells of it; an empty batch after some silence."""
    while True:
        answer = await r.xread({keys.journal(fleet): after}, count=AT_ONCE, block=BLOCK_MS)
        batch = [decode(i, f) for i, f in entries_of(answer)]
        if batch:
            after = batch[-1].id
        yield tuple(e for e in batch if wanted.fits(e))
