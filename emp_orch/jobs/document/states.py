"""The states of a job, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    """`unworkable`: no worker the fleet should have could ever run it. `timeout`: its runs took too long."""

    PENDING = "pending"
    ASSIGNED = "assigned"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    UNWORKABLE = "unworkable"


_S = JobStatus

# Back to pending: handed back, a retry, an expired lease, or asked for by a person.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    _S.PENDING: frozenset({_S.ASSIGNED, _S.CANCELLED, _S.UNWORKABLE}),
    _S.ASSIGNED: frozenset({_S.IN_PROGRESS, _S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.TIMEOUT, _S.PENDING}),
    _S.IN_PROGRESS: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.TIMEOUT, _S.PENDING}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset({_S.PENDING}),
    _S.CANCELLED: frozenset({_S.PENDING}),
    _S.TIMEOUT: frozenset({_S.PENDING}),
    _S.UNWORKABLE: frozenset({_S.PENDING, _S.CANCELLED}),
}

# A worker holds a lease on it.
HELD = frozenset({_S.ASSIGNED, _S.IN_PROGRESS})
# Its end is recorded; only a person's retry moves it again.
ENDED = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.TIMEOUT})


def may_follow(before: JobStatus, after: JobStatus) -> bool:
    return after in TRANSITIONS[before]
