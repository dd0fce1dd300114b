"""Reading many jobs: pages, counts, lanes. One snapshot is not promised; each row is true at its moment."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.model import JobSummary
from emp_orch.jobs.document.states import ENDED, HELD, JobStatus
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.codec import SUMMARY_FIELDS, JobDamaged, position_of, summary_from
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys

CHUNK = 500
# Of each damaged record.
MAX_DAMAGE = 300
# How many different priorities of one lane are looked through for its oldest job.
MAX_PRIORITIES = 16


# A job's id and its sequence number.
Row = tuple[str, int]
# An entry of a lane, and its score.
First = tuple[str, float]

T = TypeVar("T")


class Wanted(Struct, frozen=True, kw_only=True):
    """Which jobs to list: those for which all that is given holds."""

    status: JobStatus | None = None
    service: str | None = None
    worker: str | None = None
    lane: str | None = None

    @property
    def by_status_alone(self) -> bool:
        return self.service is None and self.worker is None and self.lane is None

    def fits(self, job: JobSummary) -> bool:
        return (
            (self.service is None or job.service == self.service)
            and (self.worker is None or job.worker_id == self.worker)
            and (self.lane is None or job.lane == self.lane)
        )


class JobPage(Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all that match, on this page or not. `damaged`: what is wrong with the records that
    would stand here and cannot be read, each in words that name it."""

    jobs: tuple[JobSummary, ...]
    total: int
    damaged: tuple[str, ...] = ()


class LaneView(Struct, frozen=True, kw_only=True):
    """A lane that holds jobs. `unworkable`: why no worker of the fleet could ever serve it."""

    lane: str
    requirements: Requirements
    depth: int
    oldest_ms: int
    head: str
    unworkable: str | None = None


class JobReads:
    """What Queue reads of many jobs."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys

    async def counts(self) -> dict[JobStatus, int]:
        keys = self._keys
        async with self._r.pipeline(transaction=False) as pipe:
            for status in sorted(ENDED):
                pipe.zcard(keys.jobs_in(status))
            pipe.hlen(keys.jobs)
            pipe.zcard(keys.leases)
            pipe.scard(keys.jobs_begun)
            pipe.hkeys(keys.lanes_unworkable)
            *ended, every, held, begun, flagged = await pipe.execute()
        parked = sum(await self._cards(flagged))
        found = dict(zip(sorted(ENDED), (int(n) for n in ended), strict=True))
        found |= {
            JobStatus.PENDING: max(0, every - held - sum(found.values()) - parked),
            JobStatus.UNWORKABLE: parked,
            JobStatus.ASSIGNED: max(0, held - begun),
            JobStatus.IN_PROGRESS: begun,
        }
        return {status: found[status] for status in JobStatus}

    async def _cards(self, lanes: Sequence[str]) -> list[int]:
        if not lanes:
            return []
        cards: list[int] = []
        for chunk in batched(lanes):
            async with self._r.pipeline(transaction=False) as pipe:
                for sig in chunk:
                    pipe.zcard(self._keys.lane(sig))
                cards += await pipe.execute()
        return cards

    async def statuses(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        return {j.id: j.status for j in await self._summaries(job_ids)}

    async def _summaries(self, job_ids: Sequence[str], damaged: list[str] | None = None) -> list[JobSummary]:
        """Those of `job_ids` that are known and not damaged, in their order; of the others words go to `damaged`."""
        if not job_ids:
            return []
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._keys.lanes_unworkable)
            pipe.hmget(self._keys.jobs, list(job_ids))
            for job_id in job_ids:
                pipe.hmget(self._keys.job(job_id), SUMMARY_FIELDS)
            unworkable, texts, *states = await pipe.execute()
        found = []
        for job_id, text, state in zip(job_ids, texts, states, strict=True):
            if text is None:
                continue  # forgotten between the two reads
            try:
                found.append(summary_from(job_id, text, state, unworkable))
            except JobDamaged as e:
                if damaged is not None:
                    damaged.append(e.message[:MAX_DAMAGE])
        return found

    async def page(self, wanted: Wanted, *, limit: int, offset: int) -> JobPage:
        if wanted.by_status_alone:
            counts = await self.counts()
            total = counts[wanted.status] if wanted.status is not None else sum(counts.values())
            ids = await self._newest(wanted.status, offset + limit)
        else:
            ids = await self.ids(wanted)
            total = len(ids)
        damaged: list[str] = []
        jobs = await self._summaries(ids[offset : offset + limit], damaged)
        return JobPage(jobs=tuple(jobs), total=total, damaged=tuple(damaged))

    async def ids(self, wanted: Wanted) -> list[str]:
        """All that fit, newest first. Waiting jobs are told by their lane; the others are read."""
        if wanted.by_status_alone:
            return await self._newest(wanted.status, -1)
        rows: list[Row] = []
        for parked in (False, True):
            status = JobStatus.UNWORKABLE if parked else JobStatus.PENDING
            if wanted.status in (None, status) and wanted.worker is None:
                rows += await self._waiting(-1, parked=parked, wanted=wanted)
        if wanted.status is None or wanted.status in HELD:
            rows += await self._fitting(await self._held(wanted.status), wanted)
        for status in sorted(ENDED):
            if wanted.status in (None, status):
                rows += await self._fitting(await self._ended(status, -1), wanted)
        return [i for i, _ in sorted(rows, key=_newest_first)]

    async def _fitting(self, rows: Sequence[Row], wanted: Wanted) -> list[Row]:
        """Those of `rows` that fit; a chunk at a time."""
        found: list[Row] = []
        for chunk in batched(rows):
            seq = dict(chunk)
            found += [(j.id, seq[j.id]) for j in await self._summaries(list(seq)) if wanted.fits(j)]
        return found

    async def _newest(self, status: JobStatus | None, most: int) -> list[str]:
        """Ids of a status (None: all), newest first. −1: all of them."""
        match status:
            case None:
                ended = [self._ended(s, most) for s in sorted(ENDED)]
                waiting = [self._waiting(most, parked=p) for p in (False, True)]
                rows = await asyncio.gather(*waiting, *ended, self._held(None))
                return [i for i, _ in heapq.merge(*rows, key=_newest_first)][: most if most >= 0 else None]
            case JobStatus.ASSIGNED | JobStatus.IN_PROGRESS:
                found = await self._held(status)
            case JobStatus.PENDING | JobStatus.UNWORKABLE:
                found = await self._waiting(most, parked=status is JobStatus.UNWORKABLE)
            case _:
                found = await self._ended(status, most)
        return [i for i, _ in found][: most if most >= 0 else None]

    async def _ended(self, status: JobStatus, most: int) -> list[Row]:
        end = -1 if most < 0 else most - 1
        found = await self._r.zrange(self._keys.jobs_in(status), 0, end, desc=True, withscores=True)
        return [(i, _seq(score)) for i, score in cast(list[tuple[str, float]], found)]

    async def _waiting(self, most: int, *, parked: bool, wanted: Wanted | None = None) -> list[Row]:
        """Of the lanes that nobody could serve (`parked`), or of the others; with `wanted`, of the lanes that fit."""
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._keys.lanes)
            pipe.hkeys(self._keys.lanes_unworkable)
            known, unworkable = await pipe.execute()
        lanes = [sig for sig in known if (sig in unworkable) == parked]
        if wanted is not None and wanted.lane is not None:
            lanes = [sig for sig in lanes if sig == wanted.lane]
        if wanted is not None and wanted.service is not None:
            lanes = [sig for sig in lanes if _service(known[sig]) == wanted.service]
        if most < 0:
            rows = await self._whole(lanes)
        else:
            firsts = await self._firsts(lanes)
            odd = {sig for sig, found in firsts.items() if len(found) == MAX_PRIORITIES}
            rows = await self._whole(sorted(odd)) + await self._newest_of(
                {s: f for s, f in firsts.items() if s not in odd}, most
            )
        return sorted(rows, key=_newest_first)

    async def _whole(self, lanes: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        for chunk in batched(lanes):
            async with self._r.pipeline(transaction=False) as pipe:
                for sig in chunk:
                    pipe.zrange(self._keys.lane(sig), 0, -1)
                rows += _rows(entry for entries in await pipe.execute() for entry in entries)
        return rows

    async def _newest_of(self, firsts: Mapping[str, Sequence[First]], most: int) -> list[Row]:
        """The newest of some lanes: a lane is in order of priority, and of each priority in order of age."""
        rows: list[Row] = []
        for chunk in batched([(sig, score) for sig, found in firsts.items() for _, score in found]):
            async with self._r.pipeline(transaction=False) as pipe:
                for sig, score in chunk:
                    pipe.zrevrangebyscore(self._keys.lane(sig), score, score, start=0, num=most)
                rows += _rows(entry for entries in await pipe.execute() for entry in entries)
        return rows

    async def _firsts(self, lanes: Sequence[str]) -> dict[str, list[First]]:
        """Of each lane that holds jobs the first of each priority, and its score; of at most MAX_PRIORITIES."""
        firsts: dict[str, list[First]] = {}
        left = list(lanes)
        for _ in range(MAX_PRIORITIES):
            found = [row for chunk in batched(left) for row in await self._next_firsts(chunk, firsts)]
            for sig, first in found:
                firsts.setdefault(sig, []).append(first)
            left = [sig for sig, _ in found]
            if not left:
                break
        return firsts

    async def _next_firsts(self, lanes: Sequence[str], known: Mapping[str, list[First]]) -> list[tuple[str, First]]:
        """The first job past the priorities that are known, of each of these lanes that has one."""
        async with self._r.pipeline(transaction=False) as pipe:
            for sig in lanes:
                after: Any = f"({known[sig][-1][1]!r}" if sig in known else "-inf"
                pipe.zrangebyscore(self._keys.lane(sig), after, "+inf", start=0, num=1, withscores=True)
            answers = await pipe.execute()
        return [(sig, (rows[0][0], rows[0][1])) for sig, rows in zip(lanes, answers, strict=True) if rows]

    async def _held(self, status: JobStatus | None) -> list[Row]:
        """The jobs that workers hold; as many as there are workers, at most."""
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.zrange(self._keys.leases, 0, -1)
            pipe.smembers(self._keys.jobs_begun)
            held, begun = await pipe.execute()
        if status in HELD:
            held = [i for i in held if (i in begun) == (status is JobStatus.IN_PROGRESS)]
        if not held:
            return []
        texts = cast(list[str | None], await self._r.hmget(self._keys.jobs, held))
        places = [(job_id, position_of(text)) for job_id, text in zip(held, texts, strict=True) if text is not None]
        return sorted(((i, p.seq) for i, p in places if p is not None), key=_newest_first)

    async def lanes(self) -> tuple[LaneView, ...]:
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._keys.lanes)
            pipe.hgetall(self._keys.lanes_unworkable)
            texts, unworkable = await pipe.execute()
        depths = dict(zip(texts, await self._cards(list(texts)), strict=True))
        firsts = await self._firsts([sig for sig, depth in depths.items() if depth])
        came = await self._created([min(entry for entry, _ in found) for found in firsts.values()])
        views = []
        for (sig, found), at_ms in zip(firsts.items(), came, strict=True):
            try:
                requirements = msgspec.json.decode(texts[sig], type=Requirements)
            except DAMAGED:
                continue  # a lane of another version of emp
            views.append(
                LaneView(
                    lane=sig,
                    requirements=requirements,
                    depth=depths[sig],
                    oldest_ms=at_ms,
                    head=_row(found[0][0])[0],
                    unworkable=unworkable.get(sig),
                )
            )
        return tuple(sorted(views, key=lambda v: (-v.depth, v.lane)))

    async def _created(self, entries: Sequence[str]) -> list[int]:
        """When the jobs of these entries of lanes were submitted, ms; 0 for one that is gone or damaged."""
        if not entries:
            return []
        texts = await self._r.hmget(self._keys.jobs, [_row(entry)[0] for entry in entries])
        places = [None if text is None else position_of(text) for text in cast(list[str | None], texts)]
        return [place.created_ms if place else 0 for place in places]


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """`items` in parts that one pipeline may carry."""
    for at in range(0, len(items), CHUNK):
        yield items[at : at + CHUNK]


def _service(text: str) -> str | None:
    """The service of a lane; None for one of another version of emp."""
    try:
        return msgspec.json.decode(text, type=Requirements).service
    except DAMAGED:
        return None


def _row(entry: str) -> Row:
    """An entry of a lane: 20 digits, a colon, the id. What is no entry has the number -1."""
    number = entry[:20]
    fits = number.isascii() and number.isdecimal() and entry[20:21] == ":"
    return entry[21:], int(number) if fits else -1


def _rows(entries: Iterable[str]) -> list[Row]:
    """Without what is no entry: it costs its own row."""
    return [row for row in map(_row, entries) if row[1] >= 0]


def _seq(score: float) -> int:
    """A score as a sequence number; 0 for one that is none."""
    return int(score) if 0 <= score < 2**63 else 0


def _newest_first(row: Row) -> int:
    return -row[1]
