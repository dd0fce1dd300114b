"""The queue's twin in memory: the same promises without Redis, and without chance.

Time is what `now_ms` says and tokens are counted, so the same calls give the same answers. It serves one event
loop; only `wait` and `cancel_notice` wait, on that loop's clock. For tests and simulated worlds: nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec.structs import replace

from emp_orch.jobs.document.model import Crash, Job, JobError, JobSummary, Progress, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import ENDED, HELD, JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs, Offers, model_key
from emp_orch.jobs.outcome.poison import is_poison, of_poison, with_crash
from emp_orch.jobs.outcome.retry import Cause, End, Requeue, decide
from emp_orch.store.fleet.events import Event
from emp_orch.store.queue.claim import WAIT_S, Claimed, Lease, Waiting
from emp_orch.store.queue.limits import WAIT_GRACE_MS, WAKE_ANSWER_MS
from emp_orch.store.queue.memory.jobs import Holding, Jobs, Outcome
from emp_orch.store.queue.memory.wakes import Wakes
from emp_orch.store.queue.reads import JobPage
from emp_orch.store.queue.submit import (
    AVOID_MS,
    MAX_PAGE,
    MAX_REASON,
    CancelOutcome,
    NotNow,
    SecretsForgotten,
    Submitted,
)
from emp_orch.store.queue.trim import MAX_ENDED
from emp_orch.store.queue.upkeep.reaper import Swept

_CANCEL = "cancel:"
_NO_OFFERS: Mapping[str, Offers] = {}
_SUMMARY = JobSummary.__struct_fields__


class MemoryQueue:
    """Submit, watch, cancel, reap. `jobs` and `wakes` are for MemoryClaims and for tests."""

    jobs_type: ClassVar[type[Jobs]] = Jobs

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        avoid_ms: int = AVOID_MS,
        max_ended: int = MAX_ENDED,
        wait_s: float = WAIT_S,
        offers: Mapping[str, Offers] = _NO_OFFERS,
    ) -> None:
        """`offers`: digest → what a service has, of those that workers name."""
        self.now_ms = now_ms
        self.wait_s = wait_s
        self.jobs = self.jobs_type(now_ms=now_ms, avoid_ms=avoid_ms, max_ended=max_ended, offers=offers)
        self.wakes = Wakes(grace_ms=WAIT_GRACE_MS, answer_ms=WAKE_ANSWER_MS, offers=offers)
        self._next_id = 1

    async def submit(self, job: Submission) -> Submitted:
        """Queue a job. Idempotent on its id: submitting it again changes nothing and says so."""
        sent = self._add(job, model="" if isinstance(job.payload, msgspec.Raw) else model_key(job.payload))
        if sent.created:
            self.jobs.tell_submitted(sent.job_id)
        return sent

    async def submit_many(self, jobs: Iterable[Submission]) -> list[Submitted]:
        """As if submitted one after the other, with nothing between, and told of together, lane by lane."""
        batch = list(jobs)
        if len(batch) == 1:
            return [await self.submit(batch[0])]
        sent = [self._add(job) for job in batch]
        self.jobs.tell_batch([s.job_id for s in sent if s.created])
        return sent

    def _add(self, job: Submission, *, model: str = "") -> Submitted:
        job_id = job.id or self._new_id()
        if self.jobs.has(job_id):
            there = self.jobs.get(job_id)
            asked = (job.service, job.requirements, job.max_retries, job.payload, job.inputs, job.secrets.names)
            same = self._asked(there) == asked
            return Submitted(job_id=job_id, created=False, same=same, status=there.status)
        added = self.jobs.add(job_id, job)
        self.wake_for(added, model=model if job.id is None else "")
        return Submitted(job_id=job_id, created=True, status=JobStatus.PENDING)

    def _asked(self, job: Job) -> tuple[Any, ...]:
        """What a submission must ask to be the same."""
        return job.service, self.jobs.asked(job.id), job.max_retries, job.payload, job.inputs, job.secrets

    async def get(self, job_id: str) -> Job:
        """The whole job. Raises NoSuchJob."""
        return self.jobs.get(job_id)

    async def counts(self) -> dict[JobStatus, int]:
        """How many jobs are in each status, every status included."""
        all_jobs = self.jobs.newest_first()
        return {status: sum(j.status is status for j in all_jobs) for status in JobStatus}

    async def cancel(self, job_id: str, *, reason: str = "") -> CancelOutcome:
        """End a waiting job at once; have the worker of a running one stop it. Raises NoSuchJob."""
        job = self.jobs.get(job_id)
        if job.status in ENDED:
            return CancelOutcome.ENDED
        if job.status not in HELD:
            self.jobs.end_waiting(job_id, reason)
            return CancelOutcome.CANCELLED
        if self.jobs.ask_to_stop(job_id, reason) and job.worker_id is not None:
            self.wakes.tell(job.worker_id, _CANCEL + job_id)
        return CancelOutcome.REQUESTED

    async def retry(self, job_id: str) -> None:
        """Run a job again that failed, timed out or was cancelled. Raises NoSuchJob, NotNow."""
        job = self.jobs.get(job_id)
        if job.status not in ENDED or job.status is JobStatus.COMPLETED:
            raise NotNow(
                f"job {job_id} is {job.status} and cannot be retried", hint="failed, timed out and cancelled jobs can"
            )
        if job.secrets:
            raise SecretsForgotten(job_id, job.secrets)
        self.jobs.run_again(job_id)
        self.wake_for(job)

    async def reap(self) -> tuple[Swept, ...]:
        """End the leases that are over, and pass on wakes that a dead worker got."""
        for lane in self.wakes.silent(self.now_ms()):
            self.pass_on(lane)
        swept = []
        for job in self.jobs.lost():
            reason = f"worker {job.worker_id} stopped renewing its lease"
            error = JobError(message=f"{reason}, in run {job.attempts} of {job.max_retries + 1}", retryable=True)
            status = self.run_failed(job, Cause.LOST, error, reason)
            swept.append(Swept(job_id=job.id, worker_id=job.worker_id or "", status=status))
        return tuple(swept)

    async def keep_ended(self, count: int) -> None:
        """No worker is to forget one of the newest `count` ended jobs."""
        self.jobs.keep_ended(count)

    async def judge(self, lane: str, why: str) -> int:
        """Say that nobody could ever serve a lane, and why: its jobs, also those to come, read `unworkable` and are
        given to nobody. '' takes it back. How many waiting jobs that changed; −1: nothing changed."""
        if self.jobs.unworkable.get(lane, "") == why:
            return -1
        self.jobs.set_unworkable(lane, why)
        waiting = self.jobs.waiting_in(lane)
        if not why:
            for job in waiting:
                self.wake_for(job)
        return len(waiting)

    async def purge(self, statuses: Iterable[JobStatus], *, older_than_s: float = 0, keep: int = 0) -> int:
        """Forget ended jobs: those past the newest `keep`, or those that ended at least so long ago. How many."""
        return self.jobs.purge(set(statuses), int(older_than_s * 1000), keep)

    async def list(self, *, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> JobPage:
        """A page of jobs, newest first; `limit` is at most MAX_PAGE."""
        found = [j for j in self.jobs.newest_first() if status is None or j.status is status]
        page = found[offset : offset + max(1, min(limit, MAX_PAGE))]
        return JobPage(jobs=tuple(_summary(j) for j in page), total=len(found))

    # --- for tests, simulated worlds and MemoryClaims

    @property
    def events(self) -> Sequence[Event]:
        """Every change so far, as the `events` stream has them."""
        return self.jobs.events

    @property
    def leases(self) -> Mapping[str, Holding]:
        return self.jobs.leased()

    def run_failed(self, job: Job, cause: Cause, error: JobError, reason: str) -> JobStatus:
        """Decide what follows a run without a result, and record it."""
        step = decide(
            cause=cause,
            retryable=error.retryable,
            attempts=job.attempts,
            max_retries=job.max_retries,
            cancelled=job.cancel_requested,
            poison=cause is Cause.CRASHED and is_poison(job.crashes),
        )
        status = step.status if isinstance(step, End) else JobStatus.PENDING
        outcome = Outcome(
            status=status,
            error=None if cause is Cause.HANDED_BACK else error,  # a hand-back is nobody's failure
            reason=reason[:MAX_REASON],
            counts=not isinstance(step, Requeue) or step.counts,
            crashes=job.crashes,
        )
        self.jobs.end_run(job.id, outcome)
        if status is JobStatus.PENDING:
            self.wake_for(job)
        return status

    def wake_for(self, job: Job, *, model: str = "") -> None:
        """`model`: who ran it last is woken first."""
        if job.lane in self.jobs.unworkable:
            return  # two who wait would hand on the wake for ever
        self.wakes.wake(job.lane, job.requirements, self.now_ms(), model=model)

    def pass_on(self, lane: str) -> None:
        """Whoever was woken for `lane` did not take its job: wake another, if it still holds one."""
        if waiting := self.jobs.waiting_in(lane):
            self.wake_for(waiting[0])

    def _new_id(self) -> str:
        while self.jobs.has(made := f"job-{self._next_id}"):
            self._next_id += 1
        self._next_id += 1
        return made


class MemoryClaims:
    """One worker's dealings with the queue."""

    def __init__(self, queue: MemoryQueue, worker_id: str, *, lease_s: float) -> None:
        self._queue = queue
        self._jobs = queue.jobs
        self._wakes = queue.wakes
        self._worker_id = worker_id
        self._lease_ms = int(lease_s * 1000)

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting:
        """The best job that `capabilities` satisfy, or a place among those who wait."""
        woken_for = self._wakes.answered(self._worker_id)
        best = self._jobs.best_for(self._worker_id, capabilities)
        if woken_for is not None and (best is None or best.lane != woken_for):
            self._queue.pass_on(woken_for)
        if best is not None:
            job, token = self._jobs.assign(best.id, self._worker_id, self._lease_ms)
            return Claimed(job=job, token=token)
        wait_ms = int(self._queue.wait_s * 1000)
        barred_ms = self._jobs.barred_for_ms(self._worker_id, capabilities)
        wait_ms = wait_ms if barred_ms is None else min(wait_ms, barred_ms)
        self._wakes.register(self._worker_id, capabilities, self._queue.now_ms() + wait_ms)
        return Waiting(seconds=wait_ms / 1000)

    async def wait(self, seconds: float) -> str | None:
        """Block until someone wakes this worker, at most `seconds`."""
        return await self._wakes.hear(self._worker_id, seconds)

    async def cancel_notice(self, job_id: str) -> None:
        """Return when the cancellation of `job_id`, which this worker runs, was asked for."""
        while await self.wait(self._queue.wait_s) != _CANCEL + job_id:
            pass

    async def secrets(self, claim: Claimed) -> Secrets | None:
        """What the job gave as secrets, while the lease stands. None: they are gone, or the lease is."""
        return self._jobs.secrets_of(claim.job.id) if self._stands(claim) else None

    async def renew(self, claim: Claimed) -> Lease:
        if not self._stands(claim):
            return Lease.LOST
        self._jobs.renew(claim.job.id, self._lease_ms)
        return self._heard(claim)

    async def progress(self, claim: Claimed, progress: Progress) -> Lease:
        """Publish progress; the first makes the job `in_progress`."""
        if not self._stands(claim):
            return Lease.LOST
        self._jobs.progress(claim.job.id, progress)
        return self._heard(claim)

    async def completed(self, claim: Claimed, result: Result) -> JobStatus | None:
        """Record the end with its result. None: the lease was lost, nothing was recorded."""
        return self._end(claim, Outcome(status=JobStatus.COMPLETED, result=result))

    async def cancelled(self, claim: Claimed) -> JobStatus | None:
        """Record that the run was stopped because someone asked for it. None as above."""
        return self._end(claim, Outcome(status=JobStatus.CANCELLED))

    async def not_completed(
        self, claim: Claimed, cause: Cause, error: JobError, *, crash: Crash | None = None
    ) -> JobStatus | None:
        """Record a run without a result; the job ends or goes back to its place. The status it got, None as above."""
        if not self._stands(claim):
            return None
        job = self._jobs.get(claim.job.id)
        crashes = job.crashes if crash is None else with_crash(job.crashes, crash)
        if crash is not None and is_poison(crashes):
            error = of_poison(crashes, error)
        return self._queue.run_failed(replace(job, crashes=crashes), cause, error, error.message)

    async def ran(self, model: str) -> None:
        """It ran this model, so jobs for it are given to this worker first when it waits."""
        self._wakes.ran(self._worker_id, model)

    async def lacks(self, claim: Claimed, needs: Needs, reason: str) -> JobStatus | None:
        """Back to its place, for those who have `needs` too; the run does not count. None as above."""
        if not self._stands(claim):
            return None
        if self._jobs.get(claim.job.id).cancel_requested:
            return self._end(claim, Outcome(status=JobStatus.CANCELLED, reason=reason[:MAX_REASON]))
        job = self._jobs.narrow(claim.job.id, needs, reason[:MAX_REASON])
        self._queue.wake_for(job)
        return JobStatus.PENDING

    async def leave(self) -> None:
        """This worker claims no more: it waits nowhere, and a wake on its way goes to another."""
        woken_for = self._wakes.answered(self._worker_id)
        if woken_for is not None:
            self._queue.pass_on(woken_for)

    def _stands(self, claim: Claimed) -> bool:
        return self._jobs.holds(claim.job.id, claim.token)

    def _heard(self, claim: Claimed) -> Lease:
        return Lease.CANCEL if self._jobs.get(claim.job.id).cancel_requested else Lease.OK

    def _end(self, claim: Claimed, outcome: Outcome) -> JobStatus | None:
        if not self._stands(claim):
            return None
        self._jobs.end_run(claim.job.id, outcome)
        return outcome.status


def _summary(job: Job) -> JobSummary:
    return JobSummary(**{name: getattr(job, name) for name in _SUMMARY})
