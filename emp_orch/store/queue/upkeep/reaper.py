"""The sweep: end the leases that are over, pass on wakes that a dead worker got."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.model import Job, JobError, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements, canonical
from emp_orch.jobs.outcome.retry import Cause, End, decide
from emp_orch.store.queue.claim import Claimed, Lease, RunRef, secrets_of
from emp_orch.store.queue.codec import JobDamaged, claimed
from emp_orch.store.queue.scripts import Scripts
from emp_orch.store.queue.submit import AVOID_MS, MAX_REASON
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys

SWEEP_LIMIT = 100


class Swept(Struct, frozen=True, kw_only=True):
    """A job whose lease was over, and what it became."""

    job_id: str
    worker_id: str
    status: JobStatus


class Expired(Struct, frozen=True, kw_only=True):
    """A job whose lease is over. `claim` None: its record is damaged. `run`: whom to ask what became of it.

    `cancel_requested`: somebody wants it stopped, and its worker did not do it.
    """

    job_id: str
    token: str
    worker_id: str
    claim: Claimed | None
    run: RunRef | None
    cancel_requested: bool = False
    ran_ms: int = 0


class Reaper:
    """Finds and ends lost leases. Cheap: call it every tick."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._scripts = Scripts(r, keys)

    async def expired(self, *, grace_ms: int = 0) -> tuple[Expired, ...]:
        """At most 100 jobs whose lease has been over for `grace_ms`. Also passes on unanswered wakes."""
        rows = cast(list[list[Any]], await self._scripts.sweep(SWEEP_LIMIT, grace_ms))
        return tuple(_expired(row) for row in rows)

    async def whole(self, lost: Expired) -> Expired:
        """The same with its payload, also where that is kept apart: `expired` leaves such a one out."""
        text = await self._r.get(self._keys.payload(lost.job_id))
        if text is None or lost.claim is None:
            return lost
        try:
            payload = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.structs.replace(lost, claim=None)
        job = msgspec.structs.replace(lost.claim.job, payload=payload)
        return msgspec.structs.replace(lost, claim=Claimed(job=job, token=lost.claim.token))

    async def secrets(self, lost: Expired) -> Secrets:
        """What the job gave as secrets, which its service may say back; none when its worker was faster after all."""
        if lost.claim is None or not lost.claim.job.secrets:
            return Secrets()
        return secrets_of(await self._scripts.secrets_of(lost.job_id, lost.token)) or Secrets()

    async def end(self, lost: Expired) -> JobStatus | None:
        """Back into its lane, or failed when its retries are used up. None: its worker was faster after all."""
        job = lost.claim.job if lost.claim else None
        attempts, retries = (job.attempts, job.max_retries) if job else (1, 0)
        # The script knows whether its cancellation was asked for, and looks in the same instant.
        step = decide(cause=Cause.LOST, retryable=True, attempts=attempts, max_retries=retries, cancelled=False)
        verdict = step.status if isinstance(step, End) and job else JobStatus.FAILED if not job else JobStatus.PENDING
        reason = f"worker {lost.worker_id} stopped renewing its lease"
        words = f"{reason}, in run {attempts} of {retries + 1}" if job else f"{reason}, and the job's record is damaged"
        return await self._end(lost, verdict, reason=reason, error=JobError(message=words, retryable=True), job=job)

    async def kept(self, lost: Expired, result: Result) -> JobStatus | None:
        """Completed after all: its service had finished it. None as above."""
        reason = f"worker {lost.worker_id} was lost, its service had finished the run"
        return await self._end(lost, JobStatus.COMPLETED, reason=reason, result=result)

    async def failed(self, lost: Expired, error: JobError, cause: Cause = Cause.FAILED) -> JobStatus | None:
        """Its service said that the run failed, or it took too long. None as above."""
        job = lost.claim.job if lost.claim else None
        step = decide(
            cause=cause,
            retryable=error.retryable,
            attempts=job.attempts if job else 1,
            max_retries=job.max_retries if job else 0,
            cancelled=False,
        )
        verdict = step.status if isinstance(step, End) else JobStatus.PENDING
        return await self._end(lost, verdict, reason=error.message, error=error, job=job)

    async def extend(self, lost: Expired, lease_s: float) -> None:
        """Leave it to its service for one more lease."""
        await self._scripts.renew(lost.job_id, lost.token, int(lease_s * 1000))

    async def reap(self, *, grace_ms: int = 0) -> tuple[Swept, ...]:
        """End every lease that is over, without asking anybody."""
        ended = [(lost, await self.end(lost)) for lost in await self.expired(grace_ms=grace_ms)]
        return tuple(Swept(job_id=e.job_id, worker_id=e.worker_id, status=s) for e, s in ended if s is not None)

    async def _end(
        self,
        lost: Expired,
        verdict: JobStatus,
        *,
        reason: str,
        result: Result | None = None,
        error: JobError | None = None,
        job: Job | None = None,
    ) -> JobStatus | None:
        requirements: Requirements | None = job.requirements if job else None
        status = await self._scripts.end(
            *(lost.job_id, lost.token, verdict),
            b"" if result is None else msgspec.json.encode(result),
            b"" if error is None else msgspec.json.encode(error),
            reason[:MAX_REASON],
            *(AVOID_MS if verdict is JobStatus.PENDING else 0, "0", "1"),
            b"" if requirements is None else canonical(requirements),
        )
        return None if status == Lease.LOST else JobStatus(status)


def _expired(row: list[Any]) -> Expired:
    job_id, token, worker_id, runs, document, run, cancel, ran_ms, needs = row
    try:
        count = int(runs or 0) + 1
        job = claimed(
            *(job_id, document),
            attempts=count,
            assigned_ms=0,
            error="",
            payload="",
            worker_id=worker_id,
            needs=needs,
        )
        claim = Claimed(job=job, token=token)
    except (JobDamaged, ValueError):
        claim = None
    try:
        ref = msgspec.json.decode(run, type=RunRef) if run else None
    except DAMAGED:
        ref = None
    return Expired(
        job_id=job_id,
        token=token,
        worker_id=worker_id,
        claim=claim,
        run=ref,
        cancel_requested=bool(cancel),
        ran_ms=int(ran_ms),
    )
