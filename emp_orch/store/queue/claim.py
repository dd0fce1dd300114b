"""The queue as one worker sees it: claim or wait, then hold the lease, report, and end the job.

Every write is fenced by the lease's token: after the lease was lost, nothing this worker says changes the job.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.model import Crash, Job, JobError, Progress, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.offers import Needs, Offers, both
from emp_orch.jobs.matching.requirements import ALWAYS_ASKED, Requirements, asked_of, canonical, signature, unmet
from emp_orch.jobs.outcome.full_disk import is_of_full_disk
from emp_orch.jobs.outcome.poison import is_poison, of_poison, with_crash
from emp_orch.jobs.outcome.retry import Cause, End, Requeue, decide
from emp_orch.store.queue.codec import JobDamaged, claimed, position_of
from emp_orch.store.queue.scripts import Scripts
from emp_orch.store.queue.submit import AVOID_MS, FULL_DISK_AVOID_MS, MAX_REASON
from emp_orch.store.queue.trim import Trim
from emp_orch.store.redis.client import ANSWER_S, Client
from emp_orch.store.redis.confirmed import Confirmed
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Bell, Pipelined

# An idle worker comes back this often: that is its whole cost to Redis beside the heartbeat.
WAIT_S = 20.0
# Lanes that are matched at once.
LANES_AT_ONCE = 500

# As many models a worker is taken to have at hand still.
MAX_AT_HAND = 4

_CANCEL = "cancel:"


def run_name(attempt: int, token: str) -> str:
    """What the run of a job is called that was claimed with `token`: its folder of the artifact store."""
    return f"{attempt}-{token[:8]}"


class Claimed(Struct, frozen=True, kw_only=True):
    """`token` proves the lease in every later call."""

    job: Job
    token: str

    @property
    def run(self) -> str:
        return run_name(self.job.attempts, self.token)


class RunRef(Struct, frozen=True, kw_only=True):
    """Under which name a service knows a run: whoever asks it later learns what became of it."""

    connector: str
    url: str
    ref: str


class Adopted(Struct, frozen=True, kw_only=True):
    """A job that this worker's former life held. `run` None: it had not reached the service, or cannot be asked for.

    `times`: how often this very run was taken over, this time included.
    """

    claim: Claimed
    run: RunRef | None
    cancel_requested: bool
    times: int


class Waiting(Struct, frozen=True, kw_only=True):
    """Nothing to do: the worker is registered as waiting; call `wait` for at most this long, then claim again."""

    seconds: float


class Lease(StrEnum):
    """What a holder hears: its lease stands; it stands and the job is to be stopped; it is lost."""

    OK = "ok"
    CANCEL = "cancel"
    LOST = "lost"


_EMPTY = msgspec.json.encode(Result())


def class_of(capabilities: Mapping[str, Any], asked: Iterable[str]) -> str:
    """Workers that are equal in all that any lane asks are a class: 16 hexadecimal digits."""
    picked = {name: capabilities[name] for name in sorted(asked) if name in capabilities}
    return hashlib.sha256(msgspec.json.encode([sorted(asked), picked], order="deterministic")).hexdigest()[:16]


def secrets_of(text: str) -> Secrets | None:
    """What the script SECRETS_OF answered; None when it was no secrets."""
    try:
        return Secrets(msgspec.json.decode(text, type=dict[str, str]))
    except DAMAGED:
        return None


class Claims:
    """One worker's dealings with the queue. Everything raises what redis-py raises when Redis is away.

    `line`: a connection that is shared with others; without it, each call takes one of the client's. With it so many
    `replicas` are waited for at the end of a run.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        worker_id: str,
        *,
        lease_s: float,
        line: Pipelined | None = None,
        replicas: int = 0,
    ) -> None:
        self.offers: Mapping[str, Offers] = {}  # digest → what a service has, of those that its capabilities name
        self._worker_id = worker_id
        self._lease_ms = int(lease_s * 1000)
        # An end that a failover takes back is found out, when its lease is over, and not lost.
        sure = Confirmed(line.calls, replicas, strict=False) if line and replicas else None
        self._scripts = Scripts(r, keys, line.call if line else None, sure)
        self._bell = Bell(r, keys.wake(worker_id))
        self._trim = Trim(self._scripts)
        self._capabilities: Mapping[str, Any] | None = None
        self._asked = set(ALWAYS_ASKED)
        self._class = ""
        self._fresh = True  # it just started, or waited: what Redis remembers of that is to be cleared
        self._warm: list[str] = []  # models that it ran, the last first
        self._unsure = ""  # the token of a claim whose answer did not come

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting:
        """The best job over all lanes that `capabilities` satisfy, or a place among those who wait."""
        while True:
            _, jobs, wait_s = await self._next(capabilities, 1, ())
            if wait_s is not None:
                return Waiting(seconds=wait_s)
            if jobs:
                return jobs[0]

    async def complete_and_claim(
        self, capabilities: Mapping[str, Any], done: Sequence[tuple[Claimed, Result]], *, want: int
    ) -> tuple[list[JobStatus | None], list[Claimed] | Waiting]:
        """Record ends and claim up to `want` jobs in one trip. The ends' statuses: None where the lease was lost."""
        said: list[JobStatus | None] = []
        while True:
            statuses, jobs, wait_s = await self._next(capabilities, want, done)
            said, done = said + statuses, ()
            if wait_s is not None:
                return said, Waiting(seconds=wait_s)
            if jobs or want == 0:
                return said, jobs

    async def _next(
        self, capabilities: Mapping[str, Any], want: int, done: Sequence[tuple[Claimed, Result]]
    ) -> tuple[list[JobStatus | None], list[Claimed], float | None]:
        """Statuses of `done`, the jobs claimed, and how long to wait if there is none (None: claim again)."""
        if capabilities is not self._capabilities:
            self._class, self._capabilities = class_of(capabilities, self._asked), capabilities
        await self._settle()
        token = os.urandom(8).hex()
        ended: list[Any] = []
        for claim, result in done:
            ended += (claim.job.id, claim.token, _EMPTY if result == Result() else msgspec.json.encode(result))
        self._unsure = token
        fresh, self._fresh = self._fresh, True  # whose answer is lost may have been registered as waiting
        script = self._scripts.next_after_waiting if fresh else self._scripts.next
        answer = await script(
            *(self._worker_id, self._class, token, self._lease_ms, int(WAIT_S * 1000), want, len(done), *ended)
        )
        statuses = [None if s == Lease.LOST else JobStatus(s) for s in answer[0]]
        if statuses:
            await self._trim.ended(JobStatus.COMPLETED, len(statuses))
        match answer[1]:
            case "stale":
                self._fresh, self._unsure = fresh, ""
                await self._match_lanes(capabilities)
                return statuses, [], None
            case "wait":
                self._unsure = ""
                return statuses, [], int(answer[2]) / 1000
            case _:
                self._fresh = False
                jobs = [await self._claimed(row, token) for row in answer[2:]]
                self._unsure = ""
                return statuses, [c for c in jobs if c is not None], None

    async def _settle(self) -> None:
        """What a claim took whose answer was lost goes back to its place: nobody runs it."""
        if self._unsure:
            await self._scripts.unclaim(self._unsure)
            self._unsure = ""

    async def _claimed(self, row: Sequence[Any], token: str) -> Claimed | None:
        job_id, text, runs, assigned, error, payload, needs, crashes = row
        try:
            job = claimed(
                job_id,
                text,
                attempts=int(runs) + 1,
                assigned_ms=int(assigned),
                error=error,
                payload=payload,
                worker_id=self._worker_id,
                needs=needs,
                crashes=crashes,
            )
            if not payload and (place := position_of(text)) is not None and place.apart:
                raise JobDamaged(f"job {job_id!r} in Redis is damaged: its payload is gone", hint="submit it again")
        except (JobDamaged, ValueError) as e:
            words = e.message if isinstance(e, JobDamaged) else f"job {job_id!r} in Redis is damaged: {e}"
            await self._end(job_id, token, JobStatus.FAILED, error=JobError(message=words))
            return None
        return Claimed(job=job, token=token)

    async def _match_lanes(self, capabilities: Mapping[str, Any]) -> None:
        """Find out which of the lanes that are new to its class these capabilities serve."""
        answer = cast(list[str], await self._scripts.new_lanes(self._class, LANES_AT_ONCE))
        known, version = answer[0], answer[1]
        serves, before = [], self._class
        for sig, text in zip(answer[2::2], answer[3::2], strict=True):
            try:
                requirements = msgspec.json.decode(text, type=Requirements)
            except DAMAGED:
                continue  # a lane of another version of emp: not for this worker
            if not asked_of(requirements) <= self._asked:
                self._asked |= asked_of(requirements)
                self._class = class_of(capabilities, self._asked)
                await self._scripts.retire(before, sig)
                return  # the new class begins with the first lane
            if not unmet(requirements, capabilities, offers=self.offers):
                serves.append(sig)
        await self._scripts.register(self._class, known, version, *serves)

    async def wait(self, seconds: float) -> str | None:
        """Block until someone wakes this worker, at most `seconds`."""
        return await self._bell.wait(seconds, answer_s=ANSWER_S)

    async def cancel_notice(self, job_id: str) -> None:
        """Return when the cancellation of `job_id`, which this worker runs, was asked for."""
        while await self.wait(WAIT_S) != _CANCEL + job_id:
            pass

    async def secrets(self, claim: Claimed) -> Secrets | None:
        """What the job gave as secrets, while the lease stands. None: they are gone, or the lease is."""
        if not claim.job.secrets:
            return Secrets()
        return secrets_of(await self._scripts.secrets_of(claim.job.id, claim.token))

    async def renew(self, claim: Claimed) -> Lease:
        return Lease(await self._scripts.renew(claim.job.id, claim.token, self._lease_ms))

    async def progress(self, claim: Claimed, progress: Progress) -> Lease:
        """Publish progress; the first makes the job `in_progress`."""
        return Lease(await self._scripts.progress(claim.job.id, claim.token, msgspec.json.encode(progress)))

    async def began(self, claim: Claimed, run: RunRef) -> Lease:
        """Record under which name the service knows this run."""
        return Lease(await self._scripts.began(claim.job.id, claim.token, msgspec.json.encode(run)))

    async def completed(self, claim: Claimed, result: Result) -> JobStatus | None:
        """Record the end with its result. None: the lease was lost, nothing was recorded."""
        return await self._end(claim.job.id, claim.token, JobStatus.COMPLETED, result=result)

    async def cancelled(self, claim: Claimed, *, reason: str = "") -> JobStatus | None:
        """Record that the run was stopped because someone asked for it. None as above."""
        return await self._end(claim.job.id, claim.token, JobStatus.CANCELLED, reason=reason)

    async def not_completed(
        self, claim: Claimed, cause: Cause, error: JobError, *, crash: Crash | None = None
    ) -> JobStatus | None:
        """Record a run without a result; the job ends or goes back into its lane. `crash`: its service ended during it.
        The status it got, None as above.
        """
        job = claim.job
        crashes = with_crash(job.crashes, crash) if crash else ()
        error = of_poison(crashes, error) if is_poison(crashes) else error
        step = decide(
            cause=cause,
            retryable=error.retryable,
            attempts=job.attempts,
            max_retries=job.max_retries,
            cancelled=False,  # the script knows, and looks in the same instant
            poison=is_poison(crashes),
        )
        match step:
            case End(status=status):
                return await self._end(job.id, claim.token, status, error=error, crashes=crashes)
            case Requeue(counts=counts):
                return await self._end(
                    *(job.id, claim.token, JobStatus.PENDING),
                    error=error if counts else None,
                    reason=error.message,
                    uncounted=not counts,
                    requirements=job.requirements,
                    crashes=crashes,
                    avoid_ms=FULL_DISK_AVOID_MS if is_of_full_disk(error) else AVOID_MS,
                )

    async def lacks(self, claim: Claimed, needs: Needs, reason: str) -> JobStatus | None:
        """Not for this worker: the job needs what its service does not have. It waits, at its place, for one that has
        `needs` too; the run does not count. The status it got, None as above.
        """
        needed = both(claim.job.requirements.needs, needs)
        text = canonical(msgspec.structs.replace(claim.job.requirements, needs=needed))
        status = await self._scripts.lacks(
            *(claim.job.id, claim.token, reason[:MAX_REASON], signature(text), text, msgspec.json.encode(needed))
        )
        return None if status == Lease.LOST else JobStatus(status)

    async def ran(self, model: str) -> None:
        """It ran this model (offers.model_key), so jobs for it are given to this worker first when it waits."""
        self._warm = [model, *(m for m in self._warm if m != model)]
        await self._scripts.ran(self._worker_id, model)
        while len(self._warm) > MAX_AT_HAND:
            await self._scripts.cooled(self._worker_id, self._warm.pop())

    async def adopt(self, job_id: str) -> Adopted | None:
        """Take over a job that this worker's former life held, under a new lease; None when it does not hold it."""
        token = os.urandom(8).hex()
        row = await self._scripts.adopt(self._worker_id, token, self._lease_ms, job_id)
        if not row:
            return None
        text, runs, assigned, error, payload, run, cancel, times, needs, crashes = row
        claim = await self._claimed((job_id, text, runs, assigned, error, payload, needs, crashes), token)
        if claim is None:
            return None
        try:
            ref = msgspec.json.decode(run, type=RunRef) if run else None
        except DAMAGED:
            ref = None
        return Adopted(claim=claim, run=ref, cancel_requested=bool(cancel), times=int(times))

    async def leave(self) -> None:
        """This worker claims no more: it waits nowhere, and a wake on its way goes to another."""
        self._fresh = True
        await self._settle()
        await self._scripts.leave(self._worker_id)

    async def aclose(self) -> None:
        """Close the connection on which it waits."""
        await self._bell.aclose()

    async def _end(
        self,
        job_id: str,
        token: str,
        verdict: JobStatus,
        *,
        result: Result | None = None,
        error: JobError | None = None,
        reason: str = "",
        uncounted: bool = False,
        requirements: Requirements | None = None,
        crashes: tuple[Crash, ...] = (),
        avoid_ms: int = AVOID_MS,
    ) -> JobStatus | None:
        status = await self._scripts.end(
            *(job_id, token, verdict),
            b"" if result is None else msgspec.json.encode(result),
            b"" if error is None else msgspec.json.encode(error),
            (reason or (error.message if error else ""))[:MAX_REASON],
            avoid_ms if verdict is JobStatus.PENDING else 0,
            *("1" if uncounted else "0", "0"),
            b"" if requirements is None else canonical(requirements),
            msgspec.json.encode(crashes) if crashes else b"",
        )
        if status == Lease.LOST:
            return None
        if status in ENDED:
            await self._trim.ended(JobStatus(status))
        return JobStatus(status)
