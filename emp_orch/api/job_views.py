"""Jobs as the API shows them: times in RFC 3339, ids named as everywhere else."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec import Struct

from emp_orch.jobs.model import Job, JobError, JobSummary, Result
from emp_orch.jobs.requirements import Requirements
from emp_orch.jobs.states import JobStatus
from emp_orch.store.queue import Queue
from emp_orch.web.times import rfc3339

# More active jobs than this are counted, not listed.
MAX_ACTIVE = 200


class JobView(Struct, frozen=True, kw_only=True):
    """`progress` runs from 0 to 1."""

    job_id: str
    service: str
    status: JobStatus
    priority: int
    requirements: Requirements
    lane: str
    attempts: int
    max_retries: int
    created_at: str
    assigned_at: str | None
    started_at: str | None
    finished_at: str | None
    worker_id: str | None
    cancel_requested: bool
    progress: float
    message: str
    error: JobError | None


class HistoryView(Struct, frozen=True, kw_only=True):
    at: str
    event: str
    worker_id: str
    reason: str


class JobDetail(JobView, frozen=True, kw_only=True):
    """`why`: why it is where it is; for a waiting job, what the workers lack."""

    payload: dict[str, Any]
    result: Result | None
    history: tuple[HistoryView, ...]
    why: str


class JobList(Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all that match."""

    jobs: list[JobView]
    total: int
    limit: int
    offset: int


class JobsView(Struct, frozen=True, kw_only=True):
    """Counts by status, every status included, and the jobs that workers hold."""

    counts: dict[str, int]
    active: list[JobView]


def _fields(job: JobSummary) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "service": job.service,
        "status": job.status,
        "priority": job.priority,
        "requirements": job.requirements,
        "lane": job.lane,
        "attempts": job.attempts,
        "max_retries": job.max_retries,
        "created_at": rfc3339(job.created_ms),
        "assigned_at": _at(job.assigned_ms),
        "started_at": _at(job.started_ms),
        "finished_at": _at(job.finished_ms),
        "worker_id": job.worker_id,
        "cancel_requested": job.cancel_requested,
        "progress": 1.0 if job.status is JobStatus.COMPLETED else job.progress.fraction if job.progress else 0.0,
        "message": job.progress.message if job.progress else "",
        "error": job.error,
    }


def _at(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def job_view(job: JobSummary) -> JobView:
    return JobView(**_fields(job))


def job_detail(job: Job, why: str) -> JobDetail:
    history = tuple(
        HistoryView(at=rfc3339(h.at_ms), event=h.event, worker_id=h.worker_id, reason=h.reason) for h in job.history
    )
    return JobDetail(**_fields(job), payload=job.payload, result=job.result, history=history, why=why)


async def read_jobs(queue: Queue) -> JobsView:
    counts, assigned, running = await asyncio.gather(
        queue.counts(),
        queue.list(status=JobStatus.ASSIGNED, limit=MAX_ACTIVE),
        queue.list(status=JobStatus.IN_PROGRESS, limit=MAX_ACTIVE),
    )
    active = [*running.jobs, *assigned.jobs][:MAX_ACTIVE]
    return JobsView(counts={str(s): n for s, n in counts.items()}, active=[job_view(j) for j in active])
