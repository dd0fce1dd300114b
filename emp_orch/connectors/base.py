"""What a connector is: the adapter between a worker and one service. docs/connectors.md shows how to write one.

A connector is made by `make(url, options)`: the service's address, and `connector_options` of its emp.yaml entry.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec import structs

from emp_orch.fleet.model.observed import ConnectorReport
from emp_orch.jobs.document.model import Job, JobError, Output, Progress, Result
from emp_orch.jobs.matching.offers import Offers

OnProgress = Callable[[Progress], Awaitable[None]]
OnBegan = Callable[[str], Awaitable[None]]
OnPreview = Callable[[str, bytes], Awaitable[None]]

# A service's words are kept up to this length.
MAX_MESSAGE = 10_000
# How long a service may be out of reach in the middle of a run.
GONE_S = 15.0
# How long it may take to say that it works.
PROBE_TIMEOUT_S = 3.0
# So many outputs of a failed run are kept.
MAX_KEPT = 100


# What decoding an answer may raise; bytes that are not UTF-8 and deep nesting are not DecodeErrors.
MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class RunFailed(Exception):
    """A run that gave no result. `retryable`: the same job may succeed later or elsewhere.

    A service that does not answer is a retryable failure: nothing is known of the run. `reached` False: nobody listened
    there, so no run began and none is counted.
    """

    def __init__(
        self, message: str, *, retryable: bool, detail: dict[str, Any] | None = None, reached: bool = True
    ) -> None:
        super().__init__(message)
        self.reached = reached
        if len(message) > MAX_MESSAGE:
            message = message[: MAX_MESSAGE - 1] + "…"
        self.error = JobError(message=message, retryable=retryable, detail=detail or {})

    def keep(self, outputs: Sequence[Output]) -> None:
        """Have the job keep what its run made before it failed."""
        self.error = structs.replace(self.error, outputs=(*self.error.outputs, *outputs)[:MAX_KEPT])


class StillRuns(Exception):
    """The run that was asked about has not ended yet."""


class Sink(Protocol):
    """Where the outputs of one run go."""

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        """Store `chunks` to their end under `name`; what `chunks` raises is passed on and leaves nothing behind."""

    def begin_anew(self) -> None:
        """What was saved is of no use: what comes takes its names."""


async def _dropped(content_type: str, picture: bytes) -> None:
    """Nobody looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A file that the job brings. `name` is what the job calls it, possibly with folders; `size` in bytes."""

    name: str
    size: int
    content_type: str
    read: Callable[[], AsyncIterator[bytes]] = field(repr=False)

    def open(self) -> AsyncIterator[bytes]:
        """Its bytes from the beginning, as often as it is asked for. Raises EmpError where they cannot be had."""
        return self.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a connector is given for one run of a job.

    `secrets`: what the job's payload gave as secrets, by name. They go to the service and nowhere else; in what the
    connector says of the run the worker makes them unreadable. `inputs`: the job's input files by their names.
    """

    job: Job
    sink: Sink
    on_progress: OnProgress
    on_began: OnBegan
    on_preview: OnPreview = _dropped
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    inputs: Mapping[str, InputFile] = field(default_factory=dict)

    async def progress(self, progress: Progress) -> None:
        """Tell how far the run is. Cheap: only the latest is published, a few times a second."""
        await self.on_progress(progress)

    async def preview(self, content_type: str, picture: bytes) -> None:
        """Show what the run looks like by now: image/png, image/jpeg or image/webp, at most 512 KiB.

        Cheap: only the latest is published, twice a second, and only while somebody looks. Nothing is kept.
        """
        await self.on_preview(content_type, picture)

    async def began(self, ref: str) -> None:
        """Record the service's own id of this run, so that its outcome can be asked for after a crash. Cheap."""
        await self.on_began(ref)

    def begin_anew(self) -> None:
        """Give up what was saved: the service runs the job once more, and its files take the same names."""
        self.sink.begin_anew()

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        """Store one output in the fleet's artifact store, and describe it for the Result.

        `chunks` is read as it is written, so an output need not fit into memory. The name is made safe, and unique in
        this run; the Output says what became of it.
        """
        return await self.sink.save(name, content_type, chunks)


class Connector(Protocol):
    """Probes one service, runs a job on it, stops that run. One run at a time, probes beside it."""

    @property
    def kind(self) -> str:
        """Its name, as in `connector:` of emp.yaml."""

    async def probe(self) -> ConnectorReport:
        """How the service is, by asking it: idle or error. Never raises on account of the service."""

    async def run(self, run: Run) -> Result:
        """The result of `run.job`. Raises RunFailed; anything but success is a RunFailed, never a Result."""

    async def cancel(self) -> None:
        """Have the service stop the present run, and nobody else's; `run` then raises RunFailed soon."""

    async def close(self) -> None:
        """Release connections."""


@runtime_checkable
class Tells(Protocol):
    """A connector that can say when its service began anew, and what that has. Optional."""

    @property
    def life(self) -> int:
        """Another number for each process of the service, as of the last probe; 0 before the first answer."""

    async def offers(self) -> Offers | None:
        """Which node classes and models the service has; None when it does not tell. Raises RunFailed."""


@runtime_checkable
class Recovers(Protocol):
    """A connector that can say what became of a run whose worker was lost. Optional."""

    async def recover(self, run: Run, ref: str, *, wait: bool) -> Result | None:
        """What became of the earlier run `ref` (see Run.began) of `run.job`.

        Its result when it succeeded, with the outputs saved anew through `run`. None when the service does not know
        it or gave it up: the job must be run again. Raises RunFailed when it failed, or the service does not answer
        (then retryable). While it still runs: with `wait` it is followed to its end, without StillRuns is raised.
        """
