"""The scripts that machines run. The fleet's own login loads them, as a machine's may send none: one that writes and
loops stops Redis for all.

A server forgets its scripts all at once (restart, SCRIPT FLUSH, another primary), and none of those that were loaded
with SCRIPT LOAD alone. So one look at the mark, which is loaded last, tells whether all are there.
Source: https://redis.io/docs/latest/develop/programmability/eval-intro/, as of Redis 6.2.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import lru_cache

from redis import exceptions as rexc

from emp_orch.errors import EmpError
from emp_orch.seals import Seal
from emp_orch.store.fleet.generations import KEPT, Generation, read_numbered
from emp_orch.store.queue.scripts import all_texts
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import digest_of
from emp_orch.store.reports.reports import FORGET, PUT

# PUT and FORGET of earlier releases: what agents of older images and boxes send. Whoever changes either in a later
# release puts the text that it had here.
FORMER: tuple[str, ...] = ()
# What runs from a package of an emp before this one is drained within that time.
CHANGE_MS = 3_600_000
# Texts in one pipeline: some hundred KB.
_AT_ONCE = 20


def own_texts(keys: Keys) -> tuple[str, ...]:
    """All that workers and agents of this very emp send."""
    return (*all_texts(keys).values(), PUT, FORGET)


@lru_cache(maxsize=4)
def _mark(texts: tuple[str, ...]) -> str:
    together = hashlib.sha256("".join(sorted(map(digest_of, texts))).encode()).hexdigest()
    return f"return '{together}'"


async def are_loaded(r: Client, texts: tuple[str, ...]) -> bool:
    """Whether `load` loaded just these. Raises what redis-py raises."""
    try:
        await r.evalsha(digest_of(_mark(texts)), 0)
    except rexc.NoScriptError:
        return False
    return True


async def load(r: Client, texts: tuple[str, ...]) -> None:
    """Make all of them known to Redis. Raises what redis-py raises."""
    for at in range(0, len(texts), _AT_ONCE):
        pipe = r.pipeline(transaction=False)
        for text in texts[at : at + _AT_ONCE]:
            pipe.script_load(text)
        await pipe.execute()
    await r.script_load(_mark(texts))


async def sent_until_ms(
    r: Client, keys: Keys, seal: Seal, in_force: Generation, now_ms: int, brought: Callable[[str], bool]
) -> float:
    """Until when machines may send scripts of their own, by Redis' clock: 0 where they may not, infinity while the
    package in force needs that. `brought`: whether the scripts of a package, by its digest, are known here.

    Nothing that a machine says counts. Raises what redis-py raises.
    """

    def needs(one: Generation) -> bool:
        return one.package is None or not brought(one.package.digest)

    if needs(in_force):
        return math.inf
    later = in_force
    for number in range(in_force.number - 1, max(0, in_force.number - KEPT), -1):
        if abs(now_ms - later.at_ms) >= CHANGE_MS:
            return 0
        try:
            earlier = await read_numbered(r, keys, in_force.fleet.name, number, seal)
        except EmpError:  # nobody knows what it was
            return 0
        if earlier is None:
            return 0
        if needs(earlier):
            return later.at_ms + CHANGE_MS
        later = earlier
    return 0
