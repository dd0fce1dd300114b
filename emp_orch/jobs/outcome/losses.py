"""Jobs that Redis lost: told from what was counted before and what is there now."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Count(Struct, frozen=True, kw_only=True):
    """One look at the queue. Times are Redis' TIME, ms.

    `since` names the mark by which this Redis is known again, `looks` how many looks it has had since, `told` the mark
    that stands for a loss which was told already. `seq` is the last sequence number given, `known` how many jobs have a
    record, `forgotten` how many were forgotten since the mark, `unfinished` how many have not ended.
    """

    at_ms: int
    since: str
    looks: int
    told: str
    seq: int
    known: int
    unfinished: int
    forgotten: int


class How(StrEnum):
    EMPTY = "empty"
    OLDER = "older"
    REMOVED = "removed"


class Loss(Struct, frozen=True, kw_only=True):
    """`jobs` are gone, found out at `at_ms`; at `seen_ms` they were there. `ids` are some of them, where known."""

    jobs: int
    how: How
    at_ms: int
    seen_ms: int
    ids: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        some = f" ({', '.join(self.ids)}{', …' if self.jobs > len(self.ids) else ''})" if self.ids else ""
        return f"{self.jobs} {'job is' if self.jobs == 1 else 'jobs are'} gone: {_WORDS[self.how]}{some}"

    @property
    def hint(self) -> str:
        return _HINTS[self.how]


_WORDS = {
    How.EMPTY: "Redis came back empty",
    How.OLDER: "Redis came back as it had been earlier",
    How.REMOVED: "their records were removed from Redis",
}
_KEEP = "submit them again; with `appendonly yes` Redis keeps jobs over a restart (docs/redis.md)"
_HINTS = {
    How.EMPTY: _KEEP,
    How.OLDER: _KEEP,
    How.REMOVED: "submit them again; look whether Redis evicts (maxmemory-policy), or who deletes keys there",
}


def lost(before: Count, now: Count) -> Loss | None:
    """What was there `before` and is not `now`, without having ended or been forgotten; None for nothing."""
    if now.since != before.since and now.since == now.told:
        return None  # another reconciler has told it
    new = now.seq - before.seq
    if now.since != before.since and new < 0:
        how, jobs = How.EMPTY, before.unfinished
    elif new < 0 or (now.since == before.since and now.looks <= before.looks):
        how, jobs = How.OLDER, min(max(0, -new), before.known)
    elif now.known <= new:  # all that is there was submitted since
        forgotten = now.forgotten - (before.forgotten if now.since == before.since else 0)
        how, jobs = How.REMOVED, min(before.known - forgotten, before.unfinished)
    else:
        return None
    return Loss(jobs=jobs, how=how, at_ms=now.at_ms, seen_ms=before.at_ms) if jobs > 0 else None
