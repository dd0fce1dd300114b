"""The queue as those see it who submit, watch and cancel jobs, and the sweep that ends lost leases.

The worker's half is in claims.py, the scripts in queue_lua.py.
"""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.jobs.model import Job, JobError, JobSummary
from emp_orch.jobs.requirements import canonical, lane_of, unmet
from emp_orch.jobs.retry import Cause, End, decide
from emp_orch.jobs.states import ENDED, HELD, JobStatus
from emp_orch.jobs.submission import Submission
from emp_orch.store import queue_lua as lua
from emp_orch.store import queue_prelude
from emp_orch.store.connect import Client
from emp_orch.store.job_codec import SUMMARY_FIELDS, JobDamaged, job_from, summary_from
from emp_orch.store.keys import Keys
from emp_orch.store.reports import read_reports

MAX_PAGE = 1_000
SWEEP_LIMIT = 100
# How long the worker that lost or failed a job is passed over, so that another can take it.
AVOID_MS = 5_000


class NoSuchJob(EmpError):
    """There is no job of that id: it never was, or it ended long ago and was forgotten."""

    def __init__(self, job_id: str) -> None:
        hint = f"`emp jobs` lists them; the last {queue_prelude.MAX_ENDED} that ended are kept"
        super().__init__(f"there is no job {job_id!r}", hint=hint)


class NotNow(EmpError):
    """The job's state does not allow what was asked."""


class Submitted(Struct, frozen=True, kw_only=True):
    """`created` is False when a job of that id was there already; nothing was changed then."""

    job_id: str
    created: bool
    status: JobStatus


class CancelOutcome(StrEnum):
    """`requested`: a worker runs it and was told to stop. `ended`: it had ended before."""

    CANCELLED = "cancelled"
    REQUESTED = "requested"
    ENDED = "ended"


class JobPage(Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all that match, on this page or not."""

    jobs: tuple[JobSummary, ...]
    total: int


class Swept(Struct, frozen=True, kw_only=True):
    """A job whose lease was over, and what it became."""

    job_id: str
    worker_id: str
    status: JobStatus


class Scripts:
    """The queue's scripts for one prefix."""

    def __init__(self, r: Client, keys: Keys) -> None:
        before = queue_prelude.prelude(keys)
        self.submit = r.register_script(before + lua.SUBMIT)
        self.claim = r.register_script(before + lua.CLAIM)
        self.renew = r.register_script(before + lua.RENEW)
        self.progress = r.register_script(before + lua.PROGRESS)
        self.end = r.register_script(before + lua.END)
        self.cancel = r.register_script(before + lua.CANCEL)
        self.retry = r.register_script(before + lua.RETRY)
        self.leave = r.register_script(before + lua.LEAVE)
        self.lanes = r.register_script(before + lua.READ_LANES)
        self.sweep = r.register_script(before + lua.SWEEP)


class Queue:
    """Submit, watch, cancel, sweep. Everything raises what redis-py raises when Redis is away (connect.TRANSIENT)."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._scripts = Scripts(r, keys)

    async def submit(self, job: Submission) -> Submitted:
        """Queue a job. Idempotent on its id: submitting it again changes nothing and says so."""
        job_id = job.id or str(uuid.uuid4())
        args: list[Any] = [
            job_id,
            job.service,
            msgspec.json.encode(job.payload),
            canonical(job.requirements),
            lane_of(job.requirements),
            job.priority,
            job.max_retries,
        ]
        created, status = await self._scripts.submit(args=args)
        return Submitted(job_id=job_id, created=bool(created), status=JobStatus(status))

    async def get(self, job_id: str) -> Job:
        """The whole job. Raises NoSuchJob, JobDamaged."""
        fields = cast(dict[str, str], await self._r.hgetall(self._keys.job(job_id)))
        if "status" not in fields:
            raise NoSuchJob(job_id)
        return job_from(fields)

    async def list(self, *, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> JobPage:
        """A page of jobs, newest first; `limit` is at most MAX_PAGE. Damaged records are left out."""
        index = self._keys.jobs if status is None else self._keys.jobs_in(status)
        limit = max(1, min(limit, MAX_PAGE))
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.zcard(index)
            pipe.zrange(index, offset, offset + limit - 1, desc=True)
            total, ids = await pipe.execute()
        async with self._r.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(self._keys.job(job_id), SUMMARY_FIELDS)
            rows = await pipe.execute() if ids else []
        jobs = []
        for row in rows:
            try:
                if row[0] is not None:  # forgotten between the two reads
                    jobs.append(summary_from(row))
            except JobDamaged:
                continue
        return JobPage(jobs=tuple(jobs), total=int(total))

    async def counts(self) -> dict[JobStatus, int]:
        """How many jobs are in each status, every status included."""
        async with self._r.pipeline(transaction=False) as pipe:
            for status in JobStatus:
                pipe.zcard(self._keys.jobs_in(status))
            numbers = await pipe.execute()
        return dict(zip(JobStatus, (int(n) for n in numbers), strict=True))

    async def cancel(self, job_id: str, *, reason: str = "") -> CancelOutcome:
        """End a waiting job at once; have the worker of a running one stop it. Raises NoSuchJob."""
        answer = await self._scripts.cancel(args=[job_id, reason])
        if answer[0] == "unknown":
            raise NoSuchJob(job_id)
        return CancelOutcome(answer[0])

    async def retry(self, job_id: str) -> None:
        """Run a job again that failed, timed out or was cancelled. Raises NoSuchJob, NotNow."""
        answer = await self._scripts.retry(args=[job_id])
        if answer[0] == "unknown":
            raise NoSuchJob(job_id)
        if answer[0] == "refused":
            raise NotNow(
                f"job {job_id} is {answer[1]} and cannot be retried", hint="failed, timed out and cancelled jobs can"
            )

    async def why(self, job: JobSummary) -> str:
        """Why a job is where it is, in words: for a waiting one, what the workers lack."""
        if job.status in ENDED:
            return job.error.message if job.error else f"it is {job.status}"
        if job.status in HELD:
            return f"worker {job.worker_id} works on it"
        reports = await read_reports(self._r, self._keys)
        if not reports.workers:
            return "no worker reports; `emp status` shows the fleet, `emp doctor` looks closer"
        lacking = {w: unmet(job.requirements, seen.report.capabilities) for w, seen in reports.workers.items()}
        able = sorted(w for w, reasons in lacking.items() if not reasons)
        if able:
            busy = sum(reports.workers[w].report.current_job_id is not None for w in able)
            return f"it waits for its turn: {len(able)} workers can run it, {busy} of them are busy"
        shown = [f"{w}: {'; '.join(reasons)}" for w, reasons in sorted(lacking.items())[:10]]
        more = f"; and {len(lacking) - 10} more workers" if len(lacking) > 10 else ""
        return "no worker can run it: " + " · ".join(shown) + more

    async def reap(self) -> tuple[Swept, ...]:
        """End the leases that are over, and pass on wakes that a dead worker got. Cheap: call it every tick."""
        flat = cast(list[str], await self._scripts.sweep(args=[SWEEP_LIMIT]))
        rows = [flat[i : i + 5] for i in range(0, len(flat), 5)]
        swept = []
        for job_id, token, raw_attempts, raw_retries, worker_id in rows:
            # A record that somebody damaged has had its last run.
            attempts, max_retries = _count(raw_attempts, 1_000_000), _count(raw_retries, 0)
            step = decide(
                cause=Cause.LOST,
                retryable=True,
                attempts=attempts,
                max_retries=max_retries,
                cancelled=False,  # the script knows, and looks in the same instant
            )
            reason = f"worker {worker_id} stopped renewing its lease"
            verdict = step.status if isinstance(step, End) else JobStatus.PENDING
            error = JobError(message=f"{reason}, in run {attempts} of {max_retries + 1}", retryable=True)
            args: list[Any] = [job_id, token, verdict, "", msgspec.json.encode(error), reason, AVOID_MS, "0", "1"]
            status = await self._scripts.end(args=args)
            if status != "lost":
                swept.append(Swept(job_id=job_id, worker_id=worker_id, status=JobStatus(status)))
        return tuple(swept)


def _count(text: str | None, otherwise: int) -> int:
    """A number as the script gave it; `otherwise` when the record holds none."""
    return int(text) if text is not None and text.isdecimal() else otherwise
