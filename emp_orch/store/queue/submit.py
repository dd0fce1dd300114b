"""The queue as those see it who submit, watch and cancel jobs.

The worker's half is in claim.py, the reaper's in reaper.py, reading in reads.py, the scripts in lua/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import islice
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.secrets import forgotten
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import model_key
from emp_orch.jobs.matching.requirements import Requirements, canonical, signature
from emp_orch.store.queue.codec import encoded, job_from, position_of, stored
from emp_orch.store.queue.reads import JobPage, JobReads, LaneView, Wanted
from emp_orch.store.queue.scripts import Scripts
from emp_orch.store.queue.trim import Trim
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.confirmed import Confirmed
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import Call, Calls

MAX_PAGE = 1_000
# How long the worker that lost or failed a job is passed over, so that another can take it.
AVOID_MS = 5_000
# So long where a disk was full: nobody makes room within seconds, and a neighbour on the same disk may be next.
FULL_DISK_AVOID_MS = 60_000
# Jobs in one script, while which Redis serves nobody else.
BATCH = 250
FORGET_BATCH = 500


class NoSuchJob(EmpError):
    """There is no job of that id: it never was, or it ended long ago and was forgotten."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}", hint="`emp jobs` lists them; jobs that ended long ago are gone")


class NotNow(EmpError):
    """The job's state does not allow what was asked."""


class SecretsForgotten(NotNow):
    """The job had secrets, which its end took, so that it cannot run again as it was."""

    def __init__(self, job_id: str, names: tuple[str, ...]) -> None:
        super().__init__(f"job {job_id} cannot be retried: {forgotten(names)}; submit it again")


class Submitted(Struct, frozen=True, kw_only=True):
    """`created` is False when a job of that id was there already; nothing was changed then.

    `same` says whether that one asks for the same: one that does not is probably a mistake.
    """

    job_id: str
    created: bool
    status: JobStatus
    same: bool = True


class CancelOutcome(StrEnum):
    """`requested`: a worker runs it and was told to stop. `ended`: it had ended before."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    ENDED = "ended"


def new_id() -> str:
    """An id that nobody else makes: 24 hexadecimal digits."""
    return os.urandom(12).hex()


# Stream id and progress as JSON, oldest first.
Said = Sequence[tuple[str, str]]


def _said(rows: Any) -> Said:
    return [(i, _fields(fields).get("data", "{}")) for i, fields in rows]


def _fields(answer: Any) -> dict[str, str]:
    """A hash as Redis gives it: names and values in a row, or a dict under RESP3."""
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


# The ids of a batch, and what the script is told.
Prepared = tuple[list[str], list[Any]]


class _Lanes:
    """The lanes of one batch: number, and what the script is told of each."""

    def __init__(self) -> None:
        self.args: list[Any] = []
        self._numbers: dict[bytes, int] = {}
        self._last: tuple[Requirements, int] | None = None

    def number(self, requirements: Requirements) -> int:
        if self._last is not None and self._last[0] is requirements:
            return self._last[1]
        text = canonical(requirements)
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._numbers) + 1
            self.args += (signature(text), text, requirements.service)
        self._last = (requirements, number)
        return number

    def __len__(self) -> int:
        return len(self._numbers)


def _prepared(batch: Sequence[Submission]) -> Prepared:
    prefix, lanes = new_id(), _Lanes()
    ids = [job.id or f"{prefix}-{n}" for n, job in enumerate(batch)]
    jobs: list[Any] = []
    for job_id, job in zip(ids, batch, strict=True):
        jobs += (job_id, lanes.number(job.requirements), job.priority, *encoded(job))
    fresh = all(job.id is None for job in batch)
    return ids, ["1" if fresh else "0", len(lanes), *lanes.args, *jobs]


def _batches(jobs: Iterable[Submission]) -> Iterator[list[Submission]]:
    rest = iter(jobs)
    while batch := list(islice(rest, BATCH)):
        yield batch


class Queue:
    """Submit, watch, cancel. Everything raises what redis-py raises when Redis is away (connect.TRANSIENT).

    `call` sends the scripts: Pipelined.call where many submissions are on the way at once. `calls` sends commands
    together, as Pipelined.calls. So many `replicas` are to have a submission before it counts (NotConfirmed).
    """

    def __init__(
        self, r: Client, keys: Keys, call: Call | None = None, calls: Calls | None = None, *, replicas: int = 0
    ) -> None:
        self._r = r
        self._keys = keys
        self._calls = calls or self._piped
        sure = Confirmed(self._calls, replicas, strict=True) if replicas else None
        self._scripts = Scripts(r, keys, call, sure)
        self._reads = JobReads(r, keys)
        self._trim = Trim(self._scripts)

    async def submit(self, job: Submission) -> Submitted:
        """Queue a job. Idempotent on its id: submitting it again changes nothing and says so."""
        if job.id is not None:
            return (await self._send(_prepared([job])))[0]
        job_id, text = new_id(), canonical(job.requirements)
        document, apart, secrets = encoded(job)
        await self._scripts.submit_one(
            *(job_id, signature(text), job.priority, document, apart, text, job.requirements.service, secrets),
            model_key(job.payload) if isinstance(job.payload, dict) else "",
        )
        return Submitted(job_id=job_id, created=True, status=JobStatus.PENDING)

    async def submit_many(self, jobs: Iterable[Submission]) -> list[Submitted]:
        """Queue many, in their order; idempotent as `submit`. Other clients are served between batches.

        Where one may fail in the middle, `submit_batches` tells what was queued before.
        """
        return [one async for batch in self.submit_batches(jobs) for one in batch]

    async def submit_batches(self, jobs: Iterable[Submission]) -> AsyncIterator[list[Submitted]]:
        """As submit_many; each batch as soon as Redis has it, all of it or nothing."""
        sending: asyncio.Task[list[Submitted]] | None = None
        try:
            for batch in _batches(jobs):
                ready = _prepared(batch)  # while Redis is at the one before
                done = await sending if sending is not None else None
                sending = asyncio.create_task(self._send(ready), name="submit a batch")
                await asyncio.sleep(0)  # let it go out
                if done is not None:
                    yield done
            if sending is not None:
                yield await sending
        finally:
            if sending is not None and not sending.done():
                sending.cancel()
                await asyncio.wait([sending])

    async def _send(self, ready: Prepared) -> list[Submitted]:
        ids, args = ready
        answer = cast(list[int], await self._scripts.submit(*args))
        if all(n == 1 for n in answer):
            return [Submitted(job_id=i, created=True, status=JobStatus.PENDING) for i in ids]
        there = await self.statuses([i for i, n in zip(ids, answer, strict=True) if n != 1])
        return [
            Submitted(job_id=i, created=n == 1, same=n >= 0, status=there.get(i, JobStatus.PENDING))
            for i, n in zip(ids, answer, strict=True)
        ]

    async def statuses(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """The present status of each job that is known."""
        return await self._reads.statuses(job_ids)

    async def get(self, job_id: str) -> Job:
        """The whole job. Raises NoSuchJob, JobDamaged."""
        return self._job_of(job_id, *await self._calls(*self._asks_for(job_id)))

    async def get_and_said(self, job_id: str, after: str = "-") -> tuple[Job, Said]:
        """As `get` and as `said`, read in one go."""
        *job, rows = await self._calls(*self._asks_for(job_id), ("XRANGE", self._keys.progress(job_id), after, "+"))
        return self._job_of(job_id, *job), _said(rows)

    def _asks_for(self, job_id: str) -> tuple[Sequence[str], ...]:
        """The commands whose answers `_job_of` takes."""
        return (
            ("HGET", self._keys.jobs, job_id),
            ("HGETALL", self._keys.job(job_id)),
            ("GET", self._keys.payload(job_id)),
            ("HGETALL", self._keys.lanes_unworkable),
        )

    @staticmethod
    def _job_of(job_id: str, text: str | None, state: Any, payload: str | None, unworkable: Any) -> Job:
        if text is None:
            raise NoSuchJob(job_id)
        place = position_of(text)
        return job_from(job_id, text, _fields(state), payload, _fields(unworkable).get(place.lane) if place else None)

    async def _piped(self, *commands: Sequence[Any]) -> list[Any]:
        async with self._r.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute()

    async def list(
        self, *, status: JobStatus | None = None, service: str | None = None, limit: int = 50, offset: int = 0
    ) -> JobPage:
        """A page of jobs, newest first; `limit` is at most MAX_PAGE. Damaged records are left out."""
        return await self.find(Wanted(status=status, service=service), limit=limit, offset=offset)

    async def find(self, wanted: Wanted, *, limit: int = 50, offset: int = 0) -> JobPage:
        """As `list`, of the jobs that fit `wanted`."""
        return await self._reads.page(wanted, limit=max(1, min(limit, MAX_PAGE)), offset=max(0, offset))

    async def ids(self, wanted: Wanted) -> Sequence[str]:
        """The ids of all jobs that fit `wanted`, newest first."""
        return await self._reads.ids(wanted)

    async def counts(self) -> dict[JobStatus, int]:
        """How many jobs are in each status, every status included."""
        return await self._reads.counts()

    async def lanes(self) -> tuple[LaneView, ...]:
        """The lanes that hold jobs, longest first."""
        return await self._reads.lanes()

    async def said(self, job_id: str, after: str = "-") -> Said:
        """What the runs of a job said so far (the last 200)."""
        (rows,) = await self._calls(("XRANGE", self._keys.progress(job_id), after, "+"))
        return _said(rows)

    async def cancel(self, job_id: str, *, reason: str = "") -> CancelOutcome:
        """End a waiting job at once; have the worker of a running one stop it. Raises NoSuchJob."""
        answer = await self._scripts.cancel(job_id, reason[:MAX_REASON])
        if answer[0] == "unknown":
            raise NoSuchJob(job_id)
        if answer[0] == CancelOutcome.CANCELLED:
            await self._trim.ended(JobStatus.CANCELLED)
        return CancelOutcome(answer[0])

    async def retry(self, job_id: str) -> None:
        """Run a job again that failed, timed out or was cancelled. Raises NoSuchJob, NotNow."""
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.hget(self._keys.jobs, job_id)
            pipe.hget(self._keys.job(job_id), "needs")
            text, needs = cast(tuple[str | None, str | None], await pipe.execute())
        if text is None:
            raise NoSuchJob(job_id)
        entry = stored(job_id, text)
        asked = entry.document
        answer = await self._scripts.retry(job_id, canonical(entry.requirements(needs)), "1" if asked.secrets else "0")
        if answer[0] == "unknown":
            raise NoSuchJob(job_id)
        if answer[0] == "refused":
            raise NotNow(
                f"job {job_id} is {answer[1]} and cannot be retried", hint="failed, timed out and cancelled jobs can"
            )
        if answer[0] == "forgotten":
            raise SecretsForgotten(job_id, asked.secrets)

    async def purge(self, statuses: Iterable[JobStatus], *, older_than_s: float = 0, keep: int = 0) -> int:
        """Forget ended jobs, oldest first: those past the newest `keep`, or those that ended long enough ago.

        Returns how many. Their artifacts are deleted by the reconciler.
        """
        now = await self._r.time()
        # An age beyond the beginning of time is met by none; 0 would ask for all past `keep`.
        before_ms = max(1, int(now[0] * 1000 - older_than_s * 1000) + 1) if older_than_s > 0 else 0
        gone = 0
        for status in statuses:
            if status not in ENDED:
                raise NotNow(f"{status} jobs have not ended", hint="cancel them first")
            passed = 0
            while True:
                done, looked = await self._scripts.forget(status, keep, before_ms, passed, FORGET_BATCH)
                gone += done
                passed += looked - done
                if looked < FORGET_BATCH:
                    break
        return gone

    async def keep_ended(self, count: int) -> None:
        """No worker is to forget one of the newest `count` ended jobs of a status."""
        await self._r.set(self._keys.jobs_keep, count)

    async def judge(self, lane: str, why: str) -> int:
        """Say that no worker of the fleet could ever serve a lane, and why; '' takes it back.

        Returns how many waiting jobs that changed; −1 when nothing changed.
        """
        return int(await self._scripts.judge(lane, why))

    async def lanes_version(self) -> str:
        """Another text whenever a lane came or went."""
        return str(await self._r.get(self._keys.lanes_version) or "")

    async def unworkable(self) -> Mapping[str, str]:
        """The lanes that nobody could serve, and why."""
        return cast(dict[str, str], await self._r.hgetall(self._keys.lanes_unworkable))

    async def requirements(self) -> dict[str, Requirements]:
        """What the jobs of each known lane ask. Lanes of another version of emp are left out."""
        texts = cast(dict[str, str], await self._r.hgetall(self._keys.lanes))
        found = {}
        for sig, text in texts.items():
            try:
                found[sig] = msgspec.json.decode(text, type=Requirements)
            except DAMAGED:
                continue
        return found

    async def waiting(self, lanes: Collection[str]) -> dict[str, int]:
        """How many jobs wait in each of `lanes`."""
        async with self._r.pipeline(transaction=False) as pipe:
            for sig in lanes:
                pipe.zcard(self._keys.lane(sig))
            found = await pipe.execute()
        return dict(zip(lanes, map(int, found), strict=True))


# History and events keep this much of somebody's words.
MAX_REASON = 500
