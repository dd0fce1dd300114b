"""What the queue should do, as a model that a test keeps beside it: written by hand, with nothing of emp's own rules.

Requirements are chosen from a few lanes, workers from a few kinds, and who serves what is a table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emp_orch.jobs.document.states import JobStatus
from support.queue.worlds import AVOID_MS, LEASE_MS, WAIT_S

_S = JobStatus

LANES: dict[str, dict[str, Any]] = {
    "plain": {"service": "sim"},
    "model": {"service": "sim", "requirements": {"positive": {"models": ["a"]}}},
    "not-eu": {"service": "sim", "requirements": {"negative": {"region": "eu"}}},
    "video": {"service": "video"},
    "nobody": {"service": "audio"},
    "needs-m": {"service": "sim", "requirements": {"needs": {"models": ["m.ckpt"]}}},
}
KINDS: dict[str, dict[str, Any]] = {
    "simple": {"services": ["sim"]},
    "models": {"services": ["sim"], "models": ["a", "b"]},
    "eu": {"services": ["sim", "video"], "region": "eu"},
    "with-m": {"services": ["sim"], "service_offers": {"sim": "has-m"}},
    "without-m": {"services": ["sim"], "service_offers": {"sim": "has-nothing"}},
}
SERVES = {
    "simple": {"plain", "not-eu", "needs-m"},
    "models": {"plain", "model", "not-eu", "needs-m"},
    "eu": {"plain", "video", "needs-m"},
    "with-m": {"plain", "not-eu", "needs-m"},
    "without-m": {"plain", "not-eu"},
}
ENDS = {_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.TIMEOUT}
END_EVENTS = {"job_completed", "job_failed", "job_cancelled", "job_timeout"}


@dataclass
class Run:
    """A claim that somebody was given, whether it still stands or not."""

    claimed: Any
    claims: Any
    job_id: str
    worker: str
    until_ms: int


@dataclass
class ModelJob:
    id: str
    place: int
    lane: str
    priority: int
    max_retries: int
    status: JobStatus = _S.PENDING
    attempts: int = 0
    run: Run | None = None
    cancel: bool = False
    avoid: tuple[str, int] | None = None
    ends: int = 0
    # The workers whose service it ended, the last two.
    crashed: list[str] = field(default_factory=list)
    # What it was submitted into; `lane` changes when a worker finds that its service lacks what the job needs.
    asked: str = ""
    model: str | None = None
    # Submitted with others: one event told of them all.
    in_batch: bool = False
    secret: bool = False
    # (type, worker, status), in order
    events: list[tuple[str, str | None, str]] = field(default_factory=list)

    @property
    def history(self) -> list[str]:
        return [kind for kind, _, _ in self.events if kind != "job_progress"]

    def tell(self, kind: str, worker: str | None = None) -> None:
        self.events.append((kind, worker, str(self.status)))


@dataclass
class Model:
    """The jobs, and the time in ms since the start."""

    now_ms: int = 0
    places: int = 0
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    unworkable: set[str] = field(default_factory=set)

    def status_of(self, job: ModelJob) -> JobStatus:
        """As it reads from outside."""
        return _S.UNWORKABLE if job.status is _S.PENDING and job.lane in self.unworkable else job.status

    def submitted(self, job_id: str, sent: dict[str, Any], *, in_batch: bool) -> None:
        self.places += 1
        job = ModelJob(
            job_id,
            self.places,
            sent["lane"],
            sent["priority"],
            sent["max_retries"],
            in_batch=in_batch,
            secret=sent["secret"],
        )
        job.asked, job.model = job.lane, sent["model"]
        job.tell("job_submitted")
        self.jobs[job_id] = job

    def waiting(self, kind: str | None = None) -> list[ModelJob]:
        """In the order in which they are given out, to workers of one kind; or all that are in a lane."""
        served = SERVES[kind] - self.unworkable if kind else LANES
        fitting = [j for j in self.jobs.values() if j.status is _S.PENDING and j.lane in served]
        return sorted(fitting, key=lambda j: (-j.priority, j.place))

    def barred_ms(self, job: ModelJob, worker: str) -> int:
        if job.avoid is None or job.avoid[0] != worker:
            return 0
        return max(0, job.avoid[1] - self.now_ms)

    def next_for(self, worker: str, kind: str) -> ModelJob | None:
        return next((j for j in self.waiting(kind) if not self.barred_ms(j, worker)), None)

    def patience_s(self, worker: str, kind: str) -> float:
        """How long a worker is to wait for whom there is nothing."""
        return min([WAIT_S, *(self.barred_ms(j, worker) / 1000 for j in self.waiting(kind))])

    def claimed(self, job: ModelJob, run: Run) -> None:
        job.status, job.run, job.avoid = _S.ASSIGNED, run, None
        job.attempts += 1
        job.tell("job_assigned", run.worker)
        self.runs.append(run)

    def stands(self, run: Run) -> bool:
        return run.job_id in self.jobs and self.jobs[run.job_id].run is run

    def renewed(self, run: Run) -> None:
        run.until_ms = self.now_ms + LEASE_MS

    def progressed(self, job: ModelJob) -> None:
        job.status = _S.IN_PROGRESS
        assert job.run is not None
        job.tell("job_progress", job.run.worker)

    def over(self, job: ModelJob, how: str) -> JobStatus:
        """Its run is over; what becomes of it."""
        assert job.run is not None
        worker = job.run.worker
        if how == "crash":
            job.crashed = [*(w for w in job.crashed if w != worker), worker][-2:]
        status = self._verdict(job, how)
        job.status, job.run, job.cancel = status, None, False
        if status is _S.PENDING:
            job.avoid = (worker, self.now_ms + AVOID_MS)
            job.attempts -= how == "hand back"
            job.tell("job_requeued", worker)
        else:
            self._ended(job, worker)
        return status

    def lacked(self, job: ModelJob) -> JobStatus:
        """Its worker's service has no m.ckpt."""
        assert job.run is not None
        worker, cancelled = job.run.worker, job.cancel
        job.status, job.run, job.cancel = _S.CANCELLED if cancelled else _S.PENDING, None, False
        if cancelled:
            self._ended(job, worker)
        else:
            job.lane = "needs-m"
            job.attempts -= 1
            job.tell("job_requeued", worker)
        return job.status

    def _verdict(self, job: ModelJob, how: str) -> JobStatus:
        if how == "complete":
            return _S.COMPLETED
        if how == "cancelled" or job.cancel:
            return _S.CANCELLED
        if how == "hand back":
            return _S.PENDING
        if self.is_poison(job, how):
            return _S.FAILED
        again = how in ("fail", "time out", "lose", "crash") and job.attempts <= job.max_retries
        if again:
            return _S.PENDING
        return _S.TIMEOUT if how.startswith("time out") else _S.FAILED

    def is_poison(self, job: ModelJob, how: str) -> bool:
        return how == "crash" and len(job.crashed) == 2

    def _ended(self, job: ModelJob, worker: str | None) -> None:
        job.ends += 1
        job.tell(f"job_{job.status}", worker)

    def cancelled_waiting(self, job: ModelJob) -> None:
        job.status, job.avoid = _S.CANCELLED, None
        self._ended(job, None)

    def stop_asked(self, job: ModelJob) -> bool:
        first, job.cancel = not job.cancel, True
        if first:
            assert job.run is not None
            job.tell("job_cancel_requested", job.run.worker)
        return first

    def retried(self, job: ModelJob) -> None:
        job.status, job.attempts, job.avoid, job.crashed = _S.PENDING, 0, None, []
        job.tell("job_requeued")

    def held(self) -> list[ModelJob]:
        return [j for j in self.jobs.values() if j.run is not None]

    def ended(self) -> list[ModelJob]:
        return [j for j in self.jobs.values() if j.status in ENDS]

    def lost(self) -> list[ModelJob]:
        return [j for j in self.held() if j.run and j.run.until_ms <= self.now_ms]
