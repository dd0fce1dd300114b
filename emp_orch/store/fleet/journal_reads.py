"""Reading the journal: the last entries that fit a filter, a page at a time, or what comes. It only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import cast

from msgspec import Struct

from emp_orch import units
from emp_orch.errors import UsageError
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.journal.entries import TYPES, concerns, kind_of, pool_of
from emp_orch.store.fleet.events import Entries, Event, decode, entries_of
from emp_orch.store.fleet.journal import AT_ONCE, MAX_ENTRIES
from emp_orch.store.redis.client import Client, blocking
from emp_orch.store.redis.keys import Keys

BLOCK_MS = 15_000
# Longer than the cap: XADD trims by whole nodes of the stream.
MAX_SCANNED = MAX_ENTRIES + 1_000
# Redis refuses to look before the one or after the other.
FIRST, LAST = (0, 0), (2**64 - 1, 2**64 - 1)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which entries. Empty fields let all pass. `kinds`: of drift, such as program-fatal."""

    since_ms: int = 0
    machine_id: str = ""
    types: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    subject: str = ""
    pool: str = ""

    def fits(self, entry: Event) -> bool:
        if entry.at_ms < self.since_ms or (self.types and entry.type not in self.types):
            return False
        if self.kinds and kind_of(entry.data) not in self.kinds:
            return False
        if self.pool and pool_of(entry.data) != self.pool:
            return False
        return concerns(entry.data, self.machine_id, self.subject)


def wanted(
    now_ms: int,
    *,
    since: str = "",
    machine_id: str = "",
    types: Iterable[str] = (),
    kinds: Iterable[str] = (),
    pool: str = "",
) -> Wanted:
    """The filter that a person wrote. `since` is an age (90s, 30m, 1h, 2d) or a time (RFC 3339).

    Raises UsageError for a type or kind that there is none of: nothing would be listed, as if nothing had happened.
    """
    types, kinds = frozenset(types), frozenset(kinds)
    for field, found, known in (("type", types, TYPES), ("kind", kinds, [str(k) for k in Kind])):
        for name in sorted(found.difference(known)):
            raise UsageError(f"{field}: there is no {name[:64]!r}", hint=f"there are: {', '.join(known)}")
    return Wanted(since_ms=_since_ms(since, now_ms), machine_id=machine_id, types=types, kinds=kinds, pool=pool)


def _since_ms(text: str, now_ms: int) -> int:
    if not text:
        return 0
    try:
        at = datetime.fromisoformat(text)
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        pass  # 20260131 is a day, not a number of seconds
    try:
        return max(0, now_ms - int(units.duration(text) * 1000))
    except (ValueError, OverflowError):
        raise UsageError(
            f"since: {text[:64]!r} is no age and no time", hint="write 90s, 30m, 1h, 2d or 2026-01-31T12:00:00Z"
        ) from None


class Page(Struct, frozen=True, kw_only=True):
    """Entries, oldest first. `more`: what to ask for as `before` to get those before them; None at the beginning."""

    entries: tuple[Event, ...]
    more: str | None


def _parts(entry_id: str) -> tuple[int, int]:
    """An entry's id as numbers: it may be written with zeros before them."""
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq)


async def page(
    r: Client, keys: Keys, fleet: str, wanted: Wanted, limit: int, *, before: str = "", upto: str = "+"
) -> Page:
    """The last `limit` entries that fit, of those before id `before`, or up to id `upto`."""
    if before and _parts(before) == FIRST:
        return Page(entries=(), more=None)
    found: list[Event] = []
    upto = f"({before}" if before else upto
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
    if _parts(after) == LAST:
        return ()
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
        async with blocking(BLOCK_MS):
            answer = await r.xread({keys.journal(fleet): after}, count=AT_ONCE, block=BLOCK_MS)
        batch = [decode(i, f) for i, f in entries_of(answer)]
        if batch:
            after = batch[-1].id
        yield tuple(e for e in batch if wanted.fits(e))
