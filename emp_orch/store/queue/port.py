"""What the queue promises, as types: held by the one in Redis (submit, claim) and by its twin (memory)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from emp_orch.jobs.document.model import Crash, Job, JobError, Progress, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Lease, Waiting
from emp_orch.store.queue.reads import JobPage
from emp_orch.store.queue.submit import CancelOutcome, Submitted


class QueuePort(Protocol):
    """The queue as those see it who submit, watch, cancel and forget jobs, and judge lanes."""

    async def submit(self, job: Submission) -> Submitted: ...

    async def get(self, job_id: str) -> Job: ...

    async def counts(self) -> dict[JobStatus, int]: ...

    async def cancel(self, job_id: str, *, reason: str = "") -> CancelOutcome: ...

    async def retry(self, job_id: str) -> None: ...

    async def submit_many(self, jobs: Iterable[Submission]) -> list[Submitted]: ...

    async def judge(self, lane: str, why: str) -> int: ...

    async def purge(self, statuses: Iterable[JobStatus], *, older_than_s: float = 0, keep: int = 0) -> int: ...

    async def keep_ended(self, count: int) -> None: ...

    # Last, for from here on `list` is not the type.
    async def list(self, *, status: JobStatus | None = None, limit: int = 50, offset: int = 0) -> JobPage: ...


class ClaimsPort(Protocol):
    """The queue as one worker sees it."""

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting: ...

    async def wait(self, seconds: float) -> str | None: ...

    async def cancel_notice(self, job_id: str) -> None: ...

    async def secrets(self, claim: Claimed) -> Secrets | None: ...

    async def renew(self, claim: Claimed) -> Lease: ...

    async def progress(self, claim: Claimed, progress: Progress) -> Lease: ...

    async def completed(self, claim: Claimed, result: Result) -> JobStatus | None: ...

    async def cancelled(self, claim: Claimed) -> JobStatus | None: ...

    async def not_completed(
        self, claim: Claimed, cause: Cause, error: JobError, *, crash: Crash | None = None
    ) -> JobStatus | None: ...

    async def ran(self, model: str) -> None: ...

    async def lacks(self, claim: Claimed, needs: Needs, reason: str) -> JobStatus | None: ...

    async def leave(self) -> None: ...


if TYPE_CHECKING:  # mypy says here when one of them no longer keeps what is promised
    from emp_orch.store.queue.claim import Claims
    from emp_orch.store.queue.memory.queue import MemoryClaims, MemoryQueue
    from emp_orch.store.queue.submit import Queue

    def _in_redis(queue: Queue, claims: Claims) -> tuple[QueuePort, ClaimsPort]:
        return queue, claims

    def _in_memory(queue: MemoryQueue, claims: MemoryClaims) -> tuple[QueuePort, ClaimsPort]:
        return queue, claims
