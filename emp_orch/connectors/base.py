"""What a connector is: the adapter between a worker and one service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from emp_orch.errors import EmpError
from emp_orch.fleet.observed import ConnectorReport
from emp_orch.jobs.model import Job, JobError, Progress, Result

OnProgress = Callable[[Progress], Awaitable[None]]

# A service's words are kept up to this length.
MAX_MESSAGE = 10_000


# What decoding an answer may raise; bytes that are not UTF-8 and deep nesting are not DecodeErrors.
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RunFailed(Exception):
    """A run that gave no result. `retryable`: the same job may succeed later or elsewhere."""

    def __init__(self, message: str, *, retryable: bool, detail: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        if len(message) > MAX_MESSAGE:
            message = message[: MAX_MESSAGE - 1] + "…"
        self.error = JobError(message=message, retryable=retryable, detail=detail or {})


class CannotLoad(EmpError):
    """A connector that cannot be made: its kind is unknown, or its settings are wrong."""


class Connector(Protocol):
    """Probes one service, runs a job on it, stops that run. One run at a time."""

    @property
    def kind(self) -> str:
        """Its name in the registry."""

    async def probe(self) -> ConnectorReport:
        """How the service is, by asking it: idle or error. Never raises on account of the service."""

    async def run(self, job: Job, on_progress: OnProgress) -> Result:
        """The result of `job`. Raises RunFailed; anything but success is a RunFailed, never a Result."""

    async def cancel(self) -> None:
        """Have the service stop the present run, and nobody else's; `run` then raises RunFailed soon."""

    async def close(self) -> None:
        """Release connections."""
