"""What stands in Redis against what emp keeps there: types, last ids of streams, the lease's end, numbers, sizes.

It is looked at with a few short commands, whatever the keys hold. `quarantine` is the way out: what is not emp's gets
another name for a week, and whoever keeps that key writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

from emp_orch.fleet.model.observed import DamagedKey
from emp_orch.jobs.document.states import ENDED
from emp_orch.store.fleet.leader import MAX_LEASE_MS
from emp_orch.store.queue.codec import position_of
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.damaged import MAX_FLEET_BYTES
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

# A stream that is so far ahead of Redis' clock was not written by emp, whatever the clock did.
AHEAD_MS = 24 * 3_600_000
QUARANTINE_S = 7 * 24 * 3600
MAX_PARTS = 100_000
MAX_ENTRIES = 400_000
_UNBOUNDED = 2**63
_MAX_DIGITS = 18


class Expected(NamedTuple):
    """`kind` as TYPE says it; `number`: of digits alone; `most`: bytes of a string, else parts; `kept`: a stream of
    which what is well is kept."""

    kind: str
    number: bool = False
    most: int = _UNBOUNDED
    kept: bool = False


def expected(keys: Keys, fleet: str, machines: Iterable[str] = ()) -> dict[str, Expected]:
    """What emp keeps of one fleet, by key; without what there is of each job, lane, class and worker."""
    number, reports = Expected("string", number=True, most=_MAX_DIGITS), Expected("hash", most=MAX_PARTS)
    seen, queue = Expected("zset", most=MAX_PARTS), Expected("hash")
    found = {
        **dict.fromkeys((keys.machines, keys.workers), reports),
        **dict.fromkeys((keys.machines_seen, keys.workers_seen), seen),
        keys.reports_changed: Expected("zset"),
        **dict.fromkeys((keys.reports_seq, keys.generation(fleet), keys.epoch(fleet)), number),
        keys.members_mark(fleet): number,
        **dict.fromkeys((keys.jobs_seq, keys.jobs_keep, keys.jobs_avoiding), number),
        **dict.fromkeys(
            (keys.status(fleet), keys.memory(fleet), keys.pool_courses(fleet)), Expected("string", most=MAX_FLEET_BYTES)
        ),
        **dict.fromkeys((keys.leader(fleet), keys.loss(fleet), keys.lanes_version), Expected("string", most=100_000)),
        keys.overrides(fleet): Expected("hash", most=10_000),
        **dict.fromkeys((keys.members(fleet), keys.members_counts(fleet)), reports),
        keys.events: Expected("stream", most=MAX_ENTRIES),
        **dict.fromkeys((keys.journal(fleet), keys.requests(fleet)), Expected("stream", most=MAX_ENTRIES, kept=True)),
        keys.rounds(fleet): Expected("stream", most=MAX_ENTRIES),
        **dict.fromkeys((keys.jobs, keys.jobs_mark, keys.jobs_inputs, keys.lanes), queue),
        **dict.fromkeys((keys.lanes_entry, keys.lanes_unworkable, keys.waiting, keys.waking_lane), queue),
        **dict.fromkeys((keys.leases, keys.lanes_log, keys.lanes_used, keys.classes, keys.waking), Expected("zset")),
        **dict.fromkeys((keys.assets, keys.assets_moving), Expected("zset")),
        **{keys.jobs_in(status): Expected("zset") for status in sorted(ENDED)},
        **dict.fromkeys((keys.jobs_begun, keys.jobs_files, keys.classes_waiting), Expected("set")),
        keys.jobs_forgotten: Expected("list"),
    }
    for machine_id in machines:
        found |= dict.fromkeys((keys.commands(machine_id), keys.acks(machine_id)), Expected("stream", most=MAX_ENTRIES))
        found[keys.config(machine_id)] = Expected("string", most=MAX_FLEET_BYTES)
    return found


_SIZE = {"string": "STRLEN", "hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN", "stream": "XLEN"}
_A = {
    "string": "a text",
    "hash": "a hash",
    "zset": "a sorted set",
    "set": "a set",
    "list": "a list",
    "stream": "a stream",
}


async def look(r: Client, keys: Keys, fleet: str, machines: Iterable[str] = ()) -> tuple[DamagedKey, ...]:
    """What of this fleet's keys is not as emp keeps it. Raises what redis-py raises when Redis is away."""
    wanted = expected(keys, fleet, machines)
    now_ms = await time_ms(r)
    told = await _asked(r, [("TYPE", key) for key in wanted])
    kinds = {key: kind if isinstance(kind, str) else "none" for key, kind in zip(wanted, told, strict=True)}
    found = [_typed(key, e, kinds[key]) for key, e in wanted.items() if kinds[key] not in ("none", e.kind)]
    there = [key for key, e in wanted.items() if kinds[key] == e.kind]
    sizes = await _asked(r, [(_SIZE[wanted[key].kind], key) for key in there])
    found += [
        _sized(key, wanted[key], n)
        for key, n in zip(there, sizes, strict=True)
        if isinstance(n, int) and n > wanted[key].most
    ]
    large = {d.key for d in found}
    numbers = [key for key in there if wanted[key].number and key not in large]
    for key, text in zip(numbers, await _asked(r, [("GET", key) for key in numbers]), strict=True):
        if isinstance(text, str) and not (text.isascii() and text.isdecimal()):
            found.append(DamagedKey(key=key, expected="a number", found=f"{text[:40]!r}"))
    streams = [key for key in there if wanted[key].kind == "stream" and key not in large]
    for key, ms in zip(streams, await _last_ms(r, streams), strict=True):
        if ms > now_ms + AHEAD_MS:
            ahead = DamagedKey(key=key, expected="ids up to now", found=f"{ms}- as its last id", heals=True)
            found.append(ahead)
    return (*found, *await _lease(r, keys, fleet, kinds))


async def _asked(r: Client, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Answers; where one cannot be had (the key changed meanwhile), the error."""
    if not commands:
        return []
    async with r.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return list(await pipe.execute(raise_on_error=False))


async def _last_ms(r: Client, streams: Sequence[str]) -> list[int]:
    """The times in the last ids that each stream ever gave; 0 where there is none."""
    told = await _asked(r, [("XINFO STREAM", key) for key in streams])
    ids = [str(said.get("last-generated-id", "0-0")) if isinstance(said, dict) else "0-0" for said in told]
    return [int(id_.partition("-")[0]) for id_ in ids]


async def _lease(r: Client, keys: Keys, fleet: str, kinds: dict[str, str]) -> list[DamagedKey]:
    key, found = keys.leader(fleet), []
    if kinds[key] == "string":
        left_ms = int(await r.pttl(key))
        if left_ms == -1 or left_ms > MAX_LEASE_MS:
            how = "without an end" if left_ms < 0 else f"for {left_ms / 1000:.0f} s more"
            found.append(DamagedKey(key=key, expected="a lease of seconds", found=how, heals=True))
    return found


def _typed(key: str, wanted: Expected, kind: str) -> DamagedKey:
    return DamagedKey(key=key, expected=_A[wanted.kind], found=_A.get(kind, kind))


def _sized(key: str, wanted: Expected, size: int) -> DamagedKey:
    what = "bytes" if wanted.kind == "string" else "entries"
    if wanted.number:
        return DamagedKey(key=key, expected="a number", found=f"a text of {size} bytes")
    return DamagedKey(key=key, expected=f"at most {wanted.most} {what}", found=f"{size} {what}")


_QUARANTINE = script("reports/quarantine")


async def quarantine(r: Client, keys: Keys, fleet: str, damaged: Iterable[DamagedKey]) -> list[str]:
    """Give each of `damaged` another name, so that emp goes on without it; what was done, in words.

    A stream keeps what it has up to now. A lease gets an end.
    """
    now_ms = await time_ms(r)
    wanted, done = expected(keys, fleet), []
    for damage in damaged:
        key = damage.key
        if key == keys.leader(fleet) and damage.heals:
            await r.pexpire(key, 10_000)
            done.append(f"{key} ends in 10 s unless its holder lives")
            continue
        quarantined = keys.quarantined(key, now_ms)
        whole = key in wanted and wanted[key].kept and damage.heals
        kept = await r.eval(_QUARANTINE, 2, key, quarantined, QUARANTINE_S, f"{now_ms}-0" if whole else "")
        if key == keys.jobs_seq:
            await _numbered_on(r, keys)
        done.append(f"{key} is {quarantined} now, for a week" + (f"; {kept} of its entries were kept" if kept else ""))
    return done


async def _numbered_on(r: Client, keys: Keys) -> None:
    """The next job gets a number after that of every job that is there."""
    highest, cursor = 0, 0
    while True:
        cursor, part = cast(tuple[int, dict[str, str]], await r.hscan(keys.jobs, cursor, count=500))
        places = [position_of(text) for text in part.values()]
        highest = max([highest, *(p.seq for p in places if p is not None and p.seq < 2**53)])
        if cursor == 0:
            break
    await r.set(keys.jobs_seq, highest, nx=True)
