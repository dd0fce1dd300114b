"""Which jobs are kept from a further worker, and in which words."""

from __future__ import annotations

import pytest

from emp_orch.jobs.document.model import Crash, JobError
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.poison import is_poison, of_poison, with_crash, words
from emp_orch.jobs.outcome.retry import Cause, End, Requeue, decide


def crash(worker: str, how: str = "status 3", service: str = "comfyui") -> Crash:
    return Crash(worker_id=worker, service=service, how=how)


@pytest.mark.parametrize(
    ("workers", "kept", "poison"),
    [
        ([], [], False),
        (["a"], ["a"], False),
        (["a", "a"], ["a"], False),
        (["a", "b"], ["a", "b"], True),
        (["a", "b", "a"], ["b", "a"], True),
        (["a", "b", "c"], ["b", "c"], True),
    ],
)
def test_two_workers_are_enough(workers: list[str], kept: list[str], poison: bool) -> None:
    found: tuple[Crash, ...] = ()
    for worker in workers:
        found = with_crash(found, crash(worker))
    assert ([c.worker_id for c in found], is_poison(found)) == (kept, poison)


def test_words() -> None:
    both = (crash("m-worker-0"), crash("m-worker-1", "SIGSEGV"))
    assert words(both) == "poison: it ended comfyui on m-worker-0 (status 3) and on m-worker-1 (SIGSEGV)"
    error = of_poison(both, JobError(message="comfyui was ended", retryable=True, detail={"a": 1}))
    assert error.message == f"{words(both)}; the last: comfyui was ended"
    assert (error.retryable, error.detail) == (False, {"a": 1})


@pytest.mark.parametrize(
    ("poison", "cancelled", "attempts", "expected"),
    [
        (False, False, 1, Requeue(counts=True)),
        (False, False, 3, End(status=JobStatus.FAILED)),
        (True, False, 1, End(status=JobStatus.FAILED)),
        (True, True, 1, End(status=JobStatus.CANCELLED)),
    ],
)
def test_what_becomes_of_a_job_that_ended_its_service(
    poison: bool, cancelled: bool, attempts: int, expected: Requeue | End
) -> None:
    given = decide(
        cause=Cause.CRASHED, retryable=True, attempts=attempts, max_retries=2, cancelled=cancelled, poison=poison
    )
    assert given == expected
