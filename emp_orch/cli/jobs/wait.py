"""Waiting for jobs to end: progress on stderr, and in words why a job waits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from emp_orch.cli.jobs.access import Access, plain, plural
from emp_orch.errors import WaitTimeout
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.redis.client import TRANSIENT, within

if TYPE_CHECKING:
    from rich.progress import Progress

    from emp_orch.jobs.document.model import Job

T = TypeVar("T")

# While waiting, a job is read again when an event names it, and otherwise this often.
RECHECK_S = 2.0
# A job that waits longer is told why, again whenever the reason changes.
WHY_AFTER_S = 5.0
# Redis restarts within seconds, and what was submitted goes on meanwhile.
AWAY_S = 30.0
AGAIN_S = 0.5
# Jobs of a batch that are read at each recheck; events tell of most.
RECHECKED = 2_000


def bar(*columns: Any) -> AbstractContextManager[Progress]:
    """A progress bar on stderr that is gone in the end; only lines printed above it stay."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    return Progress(
        text,
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        # rich would send what goes to stdout to its own console, which is stderr: right where both are the terminal.
        redirect_stdout=sys.stdout.isatty(),
    )


async def through_a_restart(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for again while Redis is away. Raises what redis-py raises when that takes AWAY_S."""
    clock = asyncio.get_running_loop().time
    give_up = clock() + AWAY_S
    while True:
        try:
            async with within():
                return await ask()
        except TRANSIENT:
            if clock() > give_up:
                raise
        await asyncio.sleep(AGAIN_S)


async def wait_for(access: Access, job_id: str, after: str, within_s: float | None) -> Job:
    """The job at its end, or as unworkable. Raises WaitTimeout with the reason why it is not there yet."""
    from rich.progress import TaskProgressColumn

    clock = asyncio.get_running_loop().time
    began, told = clock(), ""
    with bar(TaskProgressColumn()) as shown:
        task = shown.add_task(f"job {job_id}", total=1.0)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    job = await through_a_restart(lambda: access.queue.get(job_id))
                    if job.status in ENDED or job.status is JobStatus.UNWORKABLE:
                        return job
                    words = job.progress.message if job.progress else ""
                    done = job.progress.fraction if job.progress else 0.0
                    shown.update(task, completed=done, description=plain(f"{job.status} {words}".strip()))
                    if job.status is JobStatus.PENDING and clock() - began >= WHY_AFTER_S:
                        why = plain(await through_a_restart(partial(access.explainer.why, job)))
                        if why != told:
                            told = why
                            shown.console.print(f"job {job_id} {why}")
                    to_why = WHY_AFTER_S - (clock() - began)
                    after = await _next_change(access, job, after, min(RECHECK_S, to_why) if to_why > 0 else RECHECK_S)
        except TimeoutError:
            if within_s is None or clock() - began < within_s:
                raise  # Redis does not answer
    job = await access.queue.get(job_id)
    if job.status in ENDED or job.status is JobStatus.UNWORKABLE:
        return job
    raise WaitTimeout(
        f"job {job_id} is still {job.status} after {within_s:g} s: {await access.explainer.why(job)}",
        hint=f"it stays queued; `emp jobs explain {job_id}` looks again, `emp cancel {job_id}` ends it",
    )


async def _next_change(access: Access, job: Job, after: str, within_s: float) -> str:
    """Wait for the next event of this job or its lane; the id to go on from."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + within_s
    while (left := deadline - clock()) > 0:
        since = partial(access.events.since, after, block_ms=max(1, int(left * 1000)))
        batch = await through_a_restart(since)
        if batch:
            after = batch[-1].id
        if any(e.data.get("job_id") == job.id or e.data.get("lane") == job.lane for e in batch):
            break
    return after


class Batch:
    """Many jobs of which each is to end: told by events, and by looking at the oldest ones now and then.

    `on_end` is told each job and how it ended; None: it ended and was forgotten before it was looked at.
    """

    def __init__(self, access: Access, on_end: Callable[[str, JobStatus | None], None]) -> None:
        self._access = access
        self._on_end = on_end
        self._open: dict[str, None] = {}  # in order: the first ones will mostly end first
        self.total = 0
        self.counts: dict[JobStatus | None, int] = {}

    def add(self, job_ids: Iterable[str]) -> None:
        before = len(self._open)
        self._open.update(dict.fromkeys(job_ids))
        self.total += len(self._open) - before

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(self._open)

    @property
    def left(self) -> int:
        return len(self._open)

    def _end(self, job_id: str, status: JobStatus | None) -> None:
        del self._open[job_id]
        self.counts[status] = self.counts.get(status, 0) + 1
        self._on_end(job_id, status)

    async def wait(self, after: str, within_s: float | None) -> None:
        """Return when all have ended, or stand in lanes that nobody could serve. Raises WaitTimeout."""
        from rich.progress import MofNCompleteColumn

        clock = asyncio.get_running_loop().time
        began = clock()
        with bar(MofNCompleteColumn()) as shown:
            task = shown.add_task("waiting", total=self.total)
            try:
                async with asyncio.timeout(within_s):
                    checked = 0.0
                    while self._open:
                        if clock() - checked >= RECHECK_S:
                            await self._look()
                            checked = clock()
                        shown.update(task, completed=self.total - self.left, description=self._words())
                        if self._open:
                            after = await self._hear(after)
            except TimeoutError:
                if within_s is None or clock() - began < within_s:
                    raise  # Redis does not answer
                raise WaitTimeout(
                    f"{plural(self.left)} of {self.total:,} had not ended after {within_s:g} s: {self._words()}",
                    hint="they stay queued; `emp jobs lanes` shows who could run them",
                ) from None

    def _words(self) -> str:
        """`95 completed, 2 failed`."""
        return ", ".join(f"{n:,} {status or 'forgotten'}" for status, n in self.counts.items()) or "waiting"

    async def _hear(self, after: str) -> str:
        since = partial(self._access.events.since, after, count=2_000, block_ms=500)
        batch = await through_a_restart(since)
        for event in batch:
            job_id, status = event.data.get("job_id"), event.data.get("status")
            if isinstance(job_id, str) and job_id in self._open and status in ENDED:
                self._end(job_id, JobStatus(str(status)))
        return batch[-1].id if batch else after

    async def _look(self) -> None:
        some = [job_id for job_id, _ in zip(self._open, range(RECHECKED), strict=False)]
        found = await through_a_restart(lambda: self._access.queue.statuses(some))
        for job_id in some:
            status = found.get(job_id)
            if status is None or status in ENDED or status is JobStatus.UNWORKABLE:
                self._end(job_id, status)
            else:  # behind all others, so that each is looked at in its turn
                del self._open[job_id]
                self._open[job_id] = None

    @property
    def all_completed(self) -> bool:
        return not self._open and set(self.counts) <= {JobStatus.COMPLETED}

    def summary(self) -> str:
        return f"{plural(self.total)}: {self._words()}"
