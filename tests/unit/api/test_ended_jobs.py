"""Ended jobs that were read a moment ago."""

from __future__ import annotations

import pytest

from emp_orch.api import ended_jobs
from emp_orch.api.ended_jobs import MAX_KEPT, EndedJobs
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements


def job(id_: str, status: JobStatus = JobStatus.COMPLETED) -> Job:
    return Job(
        id=id_,
        service="comfyui",
        status=status,
        priority=0,
        requirements=Requirements(service="comfyui"),
        lane="a",
        attempts=1,
        max_retries=0,
        created_ms=1,
    )


def test_a_job_that_ended_is_kept_and_one_that_runs_is_not() -> None:
    kept = EndedJobs()
    kept.keep(job("a"))
    kept.keep(job("b", JobStatus.IN_PROGRESS))
    assert kept.get("a") == job("a")
    assert kept.get("b") is None


def test_it_is_kept_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(ended_jobs, "monotonic", lambda: now)
    kept = EndedJobs()
    kept.keep(job("a"))
    now = 100.9
    assert kept.get("a") is not None
    now = 101.0
    assert kept.get("a") is None


def test_a_retry_forgets_one_and_a_purge_all() -> None:
    kept = EndedJobs()
    for id_ in ("a", "b", "c"):
        kept.keep(job(id_))
    kept.drop("a")
    kept.drop("unknown")
    assert kept.get("a") is None
    assert kept.get("b") is not None
    kept.drop()
    assert kept.get("b") is None


def test_the_oldest_goes_when_there_are_too_many() -> None:
    kept = EndedJobs()
    for number in range(MAX_KEPT + 1):
        kept.keep(job(str(number)))
    assert kept.get("0") is None
    assert kept.get("1") is not None
