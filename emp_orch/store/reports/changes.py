"""What of the reports changed since the last look, and who fell silent: at the price of the change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

# More changes than these are read no faster one by one than all at once.
MAX_CHANGES = 2_000
# For so many numbers it is remembered what changed.
KEPT_CHANGES = 100_000
# Whatever a look by changes might miss is seen after this time at the latest.
FULL_EVERY_S = 60.0
# Of a counter that begins at the time in µs.
MAX_DIGITS = 19

_CHANGES = script("reports/changes")


class Changes(Struct, frozen=True, kw_only=True):
    """`seq` is the number of the last change. Ids of machines and workers whose documents were written or removed, and
    those that are silent."""

    now_ms: int
    seq: int
    machines: frozenset[str]
    workers: frozenset[str]
    silent_machines: frozenset[str]
    silent_workers: frozenset[str]

    def whole_since(self, seq: int) -> bool:
        """Whether this is all that changed since number `seq`: not when there may be more than were asked for, or
        when the counter began anew."""
        parts = (self.machines | self.workers, self.silent_machines, self.silent_workers)
        return all(len(part) < MAX_CHANGES for part in parts) and not began_anew(seq, self.seq)


def began_anew(before: int, seq: int) -> bool:
    """Whether `seq` is a number of another Redis than `before`: it was emptied, and all who report are heard anew."""
    return not 0 <= seq - before < KEPT_CHANGES


async def current_seq(r: Client, keys: Keys) -> int:
    try:
        return _number(await r.get(keys.reports_seq))
    except KeyDamaged:
        return 0  # the next report begins it anew


def _number(text: object) -> int:
    """A counter's value; 0 for what is none."""
    said = str(text or "")
    return int(said) if len(said) < MAX_DIGITS and said.isascii() and said.isdecimal() else 0


async def changes_since(r: Client, keys: Keys, seq: int, *, stale_after_ms: int) -> Changes:
    """All that changed after number `seq`. Raises what redis-py raises when Redis is away."""
    answer: Any = await r.eval(
        _CHANGES,
        4,
        *(keys.reports_changed, keys.reports_seq, keys.machines_seen, keys.workers_seen),
        *(seq, stale_after_ms, MAX_CHANGES),
    )
    now, last, members, silent_machines, silent_workers = answer
    return Changes(
        now_ms=int(now),
        seq=_number(last),
        machines=_of(members, keys.machines),
        workers=_of(members, keys.workers),
        silent_machines=frozenset(silent_machines[::2]),
        silent_workers=frozenset(silent_workers[::2]),
    )


def _of(members: Collection[str], documents: str) -> frozenset[str]:
    return frozenset(m.removeprefix(documents + " ") for m in members if m.startswith(documents + " "))


async def forget_old_changes(r: Client, keys: Keys, seq: int) -> None:
    """Drop what every reader knows by now: numbers long before `seq`. A reader that asks for them reads all."""
    await r.zremrangebyscore(keys.reports_changed, "-inf", seq - KEPT_CHANGES)
