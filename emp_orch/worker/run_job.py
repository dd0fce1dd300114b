"""One claimed job: run it on its connector under its lease, watch for reasons to stop, name the outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum

from msgspec import Struct

from emp_orch.connectors.base import Connector, RunFailed
from emp_orch.jobs.model import JobError, Progress, Result
from emp_orch.jobs.retry import Cause
from emp_orch.store.claims import Claimed, Claims, Lease
from emp_orch.store.connect import within
from emp_orch.worker.config import WorkerConfig
from emp_orch.worker.state import AWAY

log = logging.getLogger("emp.worker")

# Progress is published at most this often; the latest value wins.
PROGRESS_EVERY_S = 0.25
# How long a service may take to stop a run, before it is left to itself.
INTERRUPT_S = 10.0
RETRY_S = 0.5


class Done(Struct, frozen=True, kw_only=True):
    result: Result


class NotDone(Struct, frozen=True, kw_only=True):
    cause: Cause
    error: JobError


class Cancelled(Struct, frozen=True, kw_only=True):
    """The run was stopped because someone asked for it."""


class Lost(Struct, frozen=True, kw_only=True):
    """The lease is gone: the job is another's, or ended; nothing is to be recorded."""


Outcome = Done | NotDone | Cancelled | Lost


class Stop(StrEnum):
    """Why a run is stopped before its end."""

    CANCEL = "cancel"
    LOST = "lost"
    TIMEOUT = "timeout"
    DRAIN = "drain"


async def patiently(call: Callable[[], Awaitable[Lease]]) -> Lease:
    """The answer of `call`, tried again while Redis is away."""
    while True:
        try:
            async with within():
                return await call()
        except AWAY:
            await asyncio.sleep(RETRY_S)


class JobRun:
    """The run of one claim on one connector."""

    def __init__(
        self, claims: Claims, claim: Claimed, connector: Connector, config: WorkerConfig, stopping: asyncio.Event
    ) -> None:
        self._claims = claims
        self._claim = claim
        self._connector = connector
        self._config = config
        self._stopping = stopping
        self._latest = Progress(fraction=0.0)
        self._progressed = asyncio.Event()
        self._progressed.set()  # the first message says that the run has begun

    async def run(self) -> Outcome:
        """The outcome. Only cancellation of the caller is raised."""
        watches = (self._keep_lease(), self._publish(), self._cancel_notice(), self._too_long(), self._drained())
        async with asyncio.TaskGroup() as tasks:
            run = tasks.create_task(self._on_connector(), name=f"run {self._claim.job.id}")
            watchers = [tasks.create_task(w) for w in watches]
            try:
                await asyncio.wait([run, *watchers], return_when=asyncio.FIRST_COMPLETED)
                if run.done():
                    return run.result()
                reason = next(w.result() for w in watchers if w.done())
                log.info("job %s is stopped: %s", self._claim.job.id, reason)
                return await self._stopped(run, reason)
            finally:
                for task in (run, *watchers):
                    task.cancel()

    async def _on_connector(self) -> Outcome:
        async def on_progress(progress: Progress) -> None:
            self._latest = progress
            self._progressed.set()

        try:
            return Done(result=await self._connector.run(self._claim.job, on_progress))
        except RunFailed as e:
            return NotDone(cause=Cause.FAILED, error=e.error)
        except Exception as e:  # a faulty connector fails its job, not the worker
            log.exception("connector %s failed on job %s", self._connector.kind, self._claim.job.id)
            words = f"the connector {self._connector.kind} broke: {type(e).__name__}: {e}"
            return NotDone(cause=Cause.FAILED, error=JobError(message=words))

    async def _stopped(self, run: asyncio.Task[Outcome], reason: Stop) -> Outcome:
        """Interrupt the service, give the run a moment to end, and say what that makes of the job."""
        try:
            async with asyncio.timeout(INTERRUPT_S):
                await self._connector.cancel()
                await asyncio.wait([run])
        except (RunFailed, TimeoutError) as e:
            log.warning("the service did not stop the run: %s", e or "no answer in time")
        except Exception:  # a faulty connector fails its job, not the worker
            log.exception("connector %s failed to stop job %s", self._connector.kind, self._claim.job.id)
        if not run.done():
            run.cancel()
            await asyncio.wait([run])
        if reason is Stop.LOST:
            return Lost()
        if not run.cancelled() and isinstance(outcome := run.result(), Done):
            return outcome  # it was through before the interruption reached it
        match reason:
            case Stop.CANCEL:
                return Cancelled()
            case Stop.TIMEOUT:
                words = f"it ran longer than {self._config.job_timeout_s:g} s"
                return NotDone(cause=Cause.TIMEOUT, error=JobError(message=words, retryable=True))
            case Stop.DRAIN:
                words = f"worker {self._config.worker_id} shuts down"
                return NotDone(cause=Cause.HANDED_BACK, error=JobError(message=words, retryable=True))

    # reasons to stop

    async def _keep_lease(self) -> Stop:
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            match await patiently(lambda: self._claims.renew(self._claim)):
                case Lease.CANCEL:
                    return Stop.CANCEL
                case Lease.LOST:
                    return Stop.LOST
                case Lease.OK:
                    pass

    async def _publish(self) -> Stop:
        while True:
            await self._progressed.wait()
            self._progressed.clear()
            match await patiently(lambda: self._claims.progress(self._claim, self._latest)):
                case Lease.CANCEL:
                    return Stop.CANCEL
                case Lease.LOST:
                    return Stop.LOST
                case Lease.OK:
                    await asyncio.sleep(PROGRESS_EVERY_S)

    async def _cancel_notice(self) -> Stop:
        while True:
            try:
                await self._claims.cancel_notice(self._claim.job.id)
                return Stop.CANCEL
            except AWAY:
                await asyncio.sleep(RETRY_S)

    async def _too_long(self) -> Stop:
        await asyncio.sleep(self._config.job_timeout_s)
        return Stop.TIMEOUT

    async def _drained(self) -> Stop:
        await self._stopping.wait()
        await asyncio.sleep(self._config.drain_timeout_s)
        return Stop.DRAIN
