"""Jobs as the API shows them: times in RFC 3339, ids named as everywhere else."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from emp_orch.jobs.document.inputs import shown_source
from emp_orch.jobs.document.model import Job, JobError, JobSummary, Output, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.explain import Standing
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.explain import Explained, LaneWorkers
from emp_orch.store.queue.reads import LaneView
from emp_orch.store.queue.submit import Queue
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


class OutputView(Output, frozen=True, kw_only=True):
    """`url`: where this API serves it."""

    url: str


class ResultView(Struct, frozen=True, kw_only=True):
    """`detail` is whatever else the service said."""

    outputs: tuple[OutputView, ...]
    detail: dict[str, Any]


class JobDetail(JobView, frozen=True, kw_only=True):
    """`why`: why it is where it is; for a waiting job, what the workers lack. `inputs`: where its files come from.

    `secrets`: the names of those it gave. `outputs`: what there is of it, also of a run that failed.
    """

    payload: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    secrets: tuple[str, ...]
    result: ResultView | None
    outputs: tuple[OutputView, ...]
    history: tuple[HistoryView, ...]
    why: str


class JobList(Struct, frozen=True, kw_only=True):
    """Newest first. `total` counts all that match. `damaged` names the records on this page that cannot be read."""

    jobs: list[JobView]
    total: int
    limit: int
    offset: int
    damaged: tuple[str, ...] = ()


class ExplanationView(Struct, frozen=True, kw_only=True):
    """`reasons`: the requirements that this worker does not satisfy. `words`: all of it in one line."""

    worker_id: str
    standing: Standing
    reasons: tuple[str, ...]
    words: str


class JobExplanation(Struct, frozen=True, kw_only=True):
    """`why`: one sentence. `fleet`: what the applied fleet could ever do with it; '' when none was applied.

    `workers`: for a job that waits, each worker and what stands between the two.
    """

    job_id: str
    status: JobStatus
    lane: str
    requirements: Requirements
    why: str
    fleet: str
    workers: list[ExplanationView]


class LaneJobs(Struct, frozen=True, kw_only=True):
    """A lane that holds jobs. `unworkable`: why no worker of the fleet could ever serve it. `head`: its first job."""

    lane: str
    service: str
    requirements: Requirements
    depth: int
    oldest_wait_s: float
    head: str
    unworkable: str | None
    workers: LaneWorkers


class LaneList(Struct, frozen=True, kw_only=True):
    """Deepest first. `total` counts the lanes, `jobs` what waits in all of them."""

    lanes: list[LaneJobs]
    total: int
    jobs: int
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
    result = None if job.result is None else _result_view(job.id, job.result)
    inputs = {name: shown_source(source) for name, source in job.inputs.items()}
    return JobDetail(
        **_fields(job),
        payload=job.payload,
        inputs=inputs,
        secrets=job.secrets,
        result=result,
        outputs=tuple(output_view(job.id, o) for o in job.outputs),
        history=history,
        why=why,
    )


def _result_view(job_id: str, result: Result) -> ResultView:
    return ResultView(outputs=tuple(output_view(job_id, o) for o in result.outputs), detail=result.detail)


def output_view(job_id: str, output: Output) -> OutputView:
    url = f"/api/jobs/{quote(job_id, safe='')}/artifacts/{quote(output.name, safe='')}"
    return OutputView(**msgspec.structs.asdict(output), url=url)


def explanation_view(found: Explained) -> JobExplanation:
    return JobExplanation(
        job_id=found.job.id,
        status=found.job.status,
        lane=found.job.lane,
        requirements=found.job.requirements,
        why=found.why,
        fleet=found.fleet,
        workers=[
            ExplanationView(worker_id=e.worker_id, standing=e.standing, reasons=e.reasons, words=e.words)
            for e in found.workers
        ],
    )


def lane_view(lane: LaneView, workers: LaneWorkers, now_ms: int) -> LaneJobs:
    return LaneJobs(
        lane=lane.lane,
        service=lane.requirements.service,
        requirements=lane.requirements,
        depth=lane.depth,
        oldest_wait_s=wait_s(lane, now_ms),
        head=lane.head,
        unworkable=lane.unworkable,
        workers=workers,
    )


def wait_s(lane: LaneView, now_ms: int) -> float:
    """How long a lane's oldest job waits; 0 when it went meanwhile."""
    return max(0, now_ms - lane.oldest_ms) / 1000 if lane.oldest_ms else 0.0


async def read_jobs(queue: Queue) -> JobsView:
    counts, assigned, running = await asyncio.gather(
        queue.counts(),
        queue.list(status=JobStatus.ASSIGNED, limit=MAX_ACTIVE),
        queue.list(status=JobStatus.IN_PROGRESS, limit=MAX_ACTIVE),
    )
    active = [*running.jobs, *assigned.jobs][:MAX_ACTIVE]
    return JobsView(counts={str(s): n for s, n in counts.items()}, active=[job_view(j) for j in active])
