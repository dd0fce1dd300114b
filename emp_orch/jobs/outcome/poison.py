"""Jobs that end the service they run on: counted by worker, and kept from a third one."""

from __future__ import annotations

from itertools import groupby

from emp_orch.jobs.document.model import Crash, JobError

# So many workers' services may a job end. One could have been about to end anyway; two are no chance.
POISON_AFTER = 2


def with_crash(before: tuple[Crash, ...], crash: Crash) -> tuple[Crash, ...]:
    """`before` and one more: the last of each worker, and no more than are needed to judge."""
    others = tuple(c for c in before if c.worker_id != crash.worker_id)
    return (*others, crash)[-POISON_AFTER:]


def is_poison(crashes: tuple[Crash, ...]) -> bool:
    """Whether no further worker is to have the job."""
    return len({c.worker_id for c in crashes}) >= POISON_AFTER


def words(crashes: tuple[Crash, ...]) -> str:
    """`poison: it ended comfyui on m-worker-0 (status 3) and on m-worker-1 (SIGSEGV)`."""
    told = []
    for service, some in groupby(crashes, key=lambda c: c.service):
        told.append(f"{service} " + " and ".join(f"on {c.worker_id} ({c.how})" for c in some))
    return f"poison: it ended {' and '.join(told)}"


def of_poison(crashes: tuple[Crash, ...], last: JobError) -> JobError:
    """What a job fails with that is poison: where it did it, then what the last of them said. Never run by itself."""
    return JobError(message=f"{words(crashes)}; the last: {last.message}", retryable=False, detail=last.detail)
