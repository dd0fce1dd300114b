"""A job, its progress, its result and its error, as the queue keeps them. Times are ms of Redis TIME."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.matching.requirements import Requirements


class Progress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`fraction` runs from 0 to 1."""

    fraction: float
    message: str = ""


class Output(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that a run made. `path`: `{run}/{file}`, within the job's folder of the artifact store."""

    name: str
    content_type: str
    size: int
    sha256: str
    path: str


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`detail` is whatever else the service said, JSON values only."""

    outputs: tuple[Output, ...] = ()
    detail: dict[str, Any] = {}


class JobError(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a run did not complete: `message` in the service's own words; `detail` its structured answer.

    `outputs`: what the run had made until then, kept.
    """

    message: str
    retryable: bool = False
    detail: dict[str, Any] = {}
    outputs: tuple[Output, ...] = ()


def outputs_of(result: Result | None, error: JobError | None) -> tuple[Output, ...]:
    """What there is of a job: of its result, or of the run that failed."""
    if result is not None:
        return result.outputs
    return error.outputs if error is not None else ()


class Crash(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of a job during which the service of that worker's slot ended. `how`: `status 3`, `SIGSEGV`."""

    worker_id: str
    service: str
    how: str


class InputSource(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an input's content is: one of `asset` (`sha256:…`, of `size` bytes), `url`, or `output` of `job`."""

    asset: str = ""
    size: int | None = None
    url: str = ""
    job: str = ""
    output: str = ""


class HistoryEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change: `event` is an event type of the stream."""

    at_ms: int
    event: str
    worker_id: str = ""
    reason: str = ""


class JobSummary(Struct, frozen=True, kw_only=True):
    """What lists show. `priority`: larger is earlier. `attempts`: runs begun, without those handed back."""

    id: str
    service: str
    status: JobStatus
    priority: int
    requirements: Requirements
    lane: str
    attempts: int
    max_retries: int
    created_ms: int
    assigned_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    worker_id: str | None = None
    cancel_requested: bool = False
    progress: Progress | None = None
    error: JobError | None = None


class Job(JobSummary, frozen=True, kw_only=True):
    """The whole of it. `crashes`: workers whose service ended during it, since a person last had it run again.

    `secrets`: the names of what it gave as secrets; their values stand nowhere here.
    """

    crashes: tuple[Crash, ...] = ()
    payload: dict[str, Any] = {}
    inputs: dict[str, InputSource] = {}
    secrets: tuple[str, ...] = ()
    result: Result | None = None
    history: tuple[HistoryEntry, ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What there is of it: of its result, or of the run that failed."""
        return outputs_of(self.result, self.error)
