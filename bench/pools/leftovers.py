"""What Redis keeps of members that were forgotten: nothing but bounded logs and the records of jobs they ran."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any

import redis

# What names members for as long as it is kept, by its own bound: ended jobs, the last events and changes, the journal.
_BOUNDED = re.compile(
    r"^(job:|payload:|progress:|events$|reports:changed$|fleet:[^:]+:(journal|rounds|memory|status)$)"
)
_AT_ONCE = 1_000
_MEMBER = re.compile(r"renders-[a-z0-9]+")


def by_kind(r: redis.Redis) -> dict[str, int]:
    """How many keys there are, by the first word of their name."""
    return dict(Counter(str(key).partition(":")[0] for key in r.scan_iter(count=_AT_ONCE)))


def of_forgotten(r: redis.Redis, there: Collection[str]) -> list[str]:
    """`KEY` or `KEY FIELD` of all that names a member that is none of `there`."""
    found = []
    for key in r.scan_iter(count=_AT_ONCE):
        if _BOUNDED.match(key):
            continue
        found += [key] if _strange(key, there) else []
        found += [f"{key} {field}" for field in _fields(r, key) if _strange(field, there)]
    return found


def _strange(text: str, there: Collection[str]) -> bool:
    return any(m.group() not in there for m in _MEMBER.finditer(text))


def _fields(r: redis.Redis, key: str) -> Iterator[str]:
    scans: dict[str, Callable[..., Any]] = {"hash": r.hscan_iter, "zset": r.zscan_iter, "set": r.sscan_iter}
    kind = str(r.type(key))
    if kind == "list":
        yield from map(str, r.lrange(key, 0, -1))
    elif kind in scans:
        for one in scans[kind](key, count=_AT_ONCE):
            yield str(one[0] if isinstance(one, tuple) else one)
