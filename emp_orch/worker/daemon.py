"""The worker: claim → connector → report, one job at a time, for one GPU slot.

Shutdown: stop claiming; finish the job or, after the drain timeout, hand it back; withdraw the report.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, assert_never

from emp_orch.connectors.base import CannotLoad, Connector
from emp_orch.connectors.registry import load
from emp_orch.fleet.observed import ConnectorReport, ConnectorStatus, WorkerStatus
from emp_orch.jobs.model import JobError
from emp_orch.jobs.retry import Cause
from emp_orch.jobs.states import JobStatus
from emp_orch.store.claims import Claimed, Claims, Waiting
from emp_orch.store.connect import client, redacted, within
from emp_orch.store.keys import Keys
from emp_orch.worker.config import ServiceBinding, WorkerConfig
from emp_orch.worker.run_job import Cancelled, Done, JobRun, Lost, NotDone, Outcome
from emp_orch.worker.state import AWAY, Reporter, WorkerState

log = logging.getLogger("emp.worker")

MAX_PAUSE_S = 2.0


async def first_of(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Return when the first is done, with its error if it has one; the others are cancelled and awaited."""
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


class Worker:
    """One worker's loops over its parts."""

    def __init__(self, config: WorkerConfig, claims: Claims, state: WorkerState, stopping: asyncio.Event) -> None:
        self._config = config
        self._claims = claims
        self._state = state
        self._stopping = stopping
        self._connectors: dict[str, Connector] = {}

    def load_connectors(self) -> None:
        """Make the connectors; one that cannot load is reported as error, and its service not advertised."""
        for binding in self._config.services:
            try:
                self._connectors[binding.service] = load(binding.connector, binding.url)
            except CannotLoad as e:
                detail = f"{e.message}; {e.hint}" if e.hint else e.message
                self._state.set_connector(binding.service, ConnectorReport(status=ConnectorStatus.ERROR, detail=detail))
        self._state.loaded = tuple(b.service for b in self._config.services if b.service in self._connectors)

    async def close(self) -> None:
        for connector in self._connectors.values():
            await connector.close()

    @property
    def bindings(self) -> tuple[ServiceBinding, ...]:
        """Those whose connector loaded."""
        return tuple(b for b in self._config.services if b.service in self._connectors)

    async def probe(self, binding: ServiceBinding) -> None:
        """Ask one service for ever how it is."""
        connector = self._connectors[binding.service]
        while True:
            try:
                report = await connector.probe()
            except Exception as e:  # a faulty connector is in error; the worker is not
                log.exception("connector of %s failed to probe", binding.service)
                report = ConnectorReport(status=ConnectorStatus.ERROR, detail=f"{type(e).__name__}: {e}")
            self._state.set_connector(binding.service, report)
            if self._state.status is WorkerStatus.INITIALIZING and self._state.probed:
                self._rest()
            await asyncio.sleep(self._config.probe_s)

    def _rest(self) -> None:
        """The status of a worker without a job."""
        if self._stopping.is_set():
            status = WorkerStatus.STOPPING
        elif not self._connectors:
            status = WorkerStatus.ERROR
        else:
            status = WorkerStatus.IDLE if self._state.probed else WorkerStatus.INITIALIZING
        self._state.set_status(status)

    async def work(self) -> None:
        """Claim and run until asked to stop."""
        if not self._connectors:
            self._rest()
        pause = 0.1
        while not self._stopping.is_set():
            self._state.able_changed.clear()
            try:
                async with within():
                    answer = await self._claims.claim_or_wait(self._state.capabilities(only_able=True))
                pause = 0.1
                if isinstance(answer, Waiting):
                    await first_of(
                        self._claims.wait(answer.seconds), self._state.able_changed.wait(), self._stopping.wait()
                    )
                    continue
            except AWAY:  # the reporter says so in the log
                await first_of(asyncio.sleep(pause), self._stopping.wait())
                pause = min(pause * 2, MAX_PAUSE_S)
                continue
            await self._take(answer)
        await self._leave()

    async def _leave(self) -> None:
        self._rest()
        try:
            async with within():
                await self._claims.leave()
        except AWAY as e:
            log.warning("could not leave the queue: %s", e or type(e).__name__)

    async def _take(self, claim: Claimed) -> None:
        job = claim.job
        self._state.set_status(WorkerStatus.BUSY, job_id=job.id)
        log.info("job %s begins: %s, run %d of %d", job.id, job.service, job.attempts, job.max_retries + 1)
        connector = self._connectors.get(job.service)
        if connector is None:  # lanes are matched by service, so only a damaged record comes here
            error = JobError(message=f"this worker has no service {job.service!r}", retryable=True)
            outcome: Outcome = NotDone(cause=Cause.FAILED, error=error)
        else:
            self._state.set_active(job.service)
            outcome = await self._run(claim, connector)
            self._state.set_active(None)
        await self._deliver(claim, outcome)
        self._rest()

    async def _run(self, claim: Claimed, connector: Connector) -> Outcome:
        """Run the job; when a stop is asked for meanwhile, say that the worker drains."""

        async def say_draining() -> None:
            await self._stopping.wait()
            self._state.set_status(WorkerStatus.DRAINING, job_id=claim.job.id)

        async with asyncio.TaskGroup() as tasks:
            draining = tasks.create_task(say_draining(), name="draining")
            outcome = await JobRun(self._claims, claim, connector, self._config, self._stopping).run()
            draining.cancel()
        return outcome

    async def _deliver(self, claim: Claimed, outcome: Outcome) -> None:
        """Record the outcome; while Redis is away, keep it and try again until the lease must be over."""
        pause, loop = 0.1, asyncio.get_running_loop()
        give_up: float | None = None
        while True:
            try:
                async with within():
                    status = await self._record(claim, outcome)
                break
            except AWAY as e:
                log.warning("the outcome of job %s is kept until Redis is back: %s", claim.job.id, e)
            if self._stopping.is_set():
                give_up = give_up or loop.time() + self._config.drain_timeout_s
                if loop.time() > give_up:
                    log.error("job %s: its outcome could not be delivered before the stop", claim.job.id)
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_S)
        self._count(claim, outcome, status)

    async def _record(self, claim: Claimed, outcome: Outcome) -> JobStatus | None:
        match outcome:
            case Done(result=result):
                return await self._claims.completed(claim, result)
            case NotDone(cause=cause, error=error):
                return await self._claims.not_completed(claim, cause, error)
            case Cancelled():
                return await self._claims.cancelled(claim)
            case Lost():
                return None
            case _:
                assert_never(outcome)

    def _count(self, claim: Claimed, outcome: Outcome, status: JobStatus | None) -> None:
        if status is None:
            log.warning("job %s: the lease was lost, its outcome is dropped", claim.job.id)
            return
        words = f": {outcome.error.message}" if isinstance(outcome, NotDone) else ""
        log.info("job %s: %s%s", claim.job.id, status, words)
        if status is JobStatus.COMPLETED:
            self._state.completed += 1
        elif isinstance(outcome, NotDone) and outcome.cause is not Cause.HANDED_BACK:
            self._state.failed += 1


async def run_worker(config: WorkerConfig, redis_url: str, prefix: str, stopping: asyncio.Event) -> None:
    """Work until `stopping` is set and the job in hand is dealt with; leaves no report behind."""
    keys = Keys(prefix)
    r = client(redis_url)
    state = WorkerState(config)
    reporter = Reporter(r, keys, config, state)
    worker = Worker(config, Claims(r, keys, config.worker_id, lease_s=config.lease_s), state, stopping)
    log.info("worker %s starts, Redis at %s", config.worker_id, redacted(redis_url))
    worker.load_connectors()
    try:
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(reporter.run(), name="reporter")]
            loops += [tasks.create_task(worker.probe(b), name=f"probe {b.service}") for b in worker.bindings]
            await tasks.create_task(worker.work(), name="work")
            for loop in loops:
                loop.cancel()
    finally:
        await worker.close()
        await reporter.withdraw()
        await r.aclose()
    log.info("worker %s stopped", config.worker_id)
