"""What becomes of a job whose run did not complete: a decision as a value."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from emp_orch.jobs.document.states import JobStatus


class Cause(StrEnum):
    """Why a run ended without a result."""

    FAILED = "failed"  # the service or the connector said so
    TIMEOUT = "timeout"  # it ran longer than it may
    LOST = "lost"  # its worker stopped renewing the lease
    CRASHED = "crashed"  # its service ended during it
    HANDED_BACK = "handed_back"  # its worker shuts down, or its service was not there; no attempt is counted


class Requeue(Struct, frozen=True, kw_only=True):
    """Back into its lane at its old place. `counts` says whether the attempt is used up."""

    counts: bool


class End(Struct, frozen=True, kw_only=True):
    status: JobStatus


def decide(
    *, cause: Cause, retryable: bool, attempts: int, max_retries: int, cancelled: bool, poison: bool = False
) -> Requeue | End:
    """The next step after run number `attempts` (1 is the first) of a job that may be retried `max_retries` times.

    `cancelled`: someone asked for the job's cancellation, so it is not run again. `poison`: it ended as many
    services as it may (poison.py).
    """
    if cancelled:
        return End(status=JobStatus.CANCELLED)
    if cause is Cause.HANDED_BACK:
        return Requeue(counts=False)
    if retryable and attempts <= max_retries and not poison:
        return Requeue(counts=True)
    return End(status=JobStatus.TIMEOUT if cause is Cause.TIMEOUT else JobStatus.FAILED)
