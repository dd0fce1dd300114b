"""A worker's loops: ask its services how they are, claim a job, run it, say what came of it; one job at a time."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from emp_orch.connectors import sanitise
from emp_orch.connectors.base import Connector
from emp_orch.connectors.registry import load
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, WorkerStatus
from emp_orch.jobs.document.model import Job, JobError
from emp_orch.jobs.matching.offers import both, model_key
from emp_orch.jobs.outcome.full_disk import is_of_full_disk
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.options.base import CannotLoad
from emp_orch.store.artifacts.previews import Previews
from emp_orch.store.queue.claim import Claimed, Claims, RunRef, Waiting
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.redis.client import within
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import ServiceBinding, WorkerConfig, machine_folder
from emp_orch.worker.files.inputs import Inputs
from emp_orch.worker.files.store import Saves, StoreWatch
from emp_orch.worker.limits import REDIS_PAUSE_S
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.delivery import Delivery
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import Done, Lacks, NotDone, Outcome
from emp_orch.worker.services.probe import probed
from emp_orch.worker.services.readiness import Readiness
from emp_orch.worker.state import WorkerState

log = logging.getLogger("emp.worker")

CLOSE_S = 5.0
# A run that was taken over so often and saw its worker end again is not followed any more: it may be the cause.
MAX_ADOPTIONS = 2


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


def _refused(outcome: Outcome) -> bool:
    """Whether the service may lack a node class or a model that it had."""
    return isinstance(outcome, NotDone) and outcome.error.detail.keys() >= {"error", "node_errors"}


def _doubtful(outcome: NotDone) -> bool:
    """Whether the service may be the cause. One that is gone would fail one job after another until its next probe."""
    return outcome.cause in (Cause.FAILED, Cause.CRASHED, Cause.HANDED_BACK) and outcome.error.retryable


class Worker:
    """One worker's loops over its parts."""

    def __init__(
        self,
        config: WorkerConfig,
        claims: Claims,
        artifacts: Saves,
        state: WorkerState,
        stopping: asyncio.Event,
        offers: OffersStore,
        previews: Previews | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self._previews = previews
        self._config = config
        self._artifacts = artifacts
        self.store = StoreWatch(artifacts, state)
        self._claims = claims
        self._state = state
        self._stopping = stopping
        self._inputs = inputs
        self._delivery = Delivery(claims, state, stopping, drain_s=config.drain_timeout_s)
        self._connectors: dict[str, Connector] = {}
        self._asking = {b.service: asyncio.Lock() for b in config.services}

        async def keep(digest: str, text: bytes) -> None:
            async with within():
                await offers.keep(digest, text)

        self._ready = Readiness(config.services, keep, limit_s=config.job_timeout_s)
        claims.offers = self._ready.known

    def load_connectors(self) -> None:
        """Make the connectors; one that cannot load is reported as error, and its service not advertised."""
        for binding in self._config.services:
            try:
                self._connectors[binding.service] = load(binding.connector, binding.url, binding.options)
            except CannotLoad as e:
                detail = f"{e.message}; {e.hint}" if e.hint else e.message
                log.error("connector of %s: %s", binding.service, detail)
                report = ConnectorReport(status=ConnectorStatus.ERROR, detail=detail)
                self._state.set_connector(binding.service, sanitise.report_of(report))
        self._state.loaded = tuple(b.service for b in self._config.services if b.service in self._connectors)

    async def close(self) -> None:
        await self._ready.close()
        for service, connector in self._connectors.items():
            try:
                async with asyncio.timeout(CLOSE_S):
                    await connector.close()
            except Exception:  # a faulty connector does not keep the others open
                log.exception("connector of %s failed to close", service)

    @property
    def bindings(self) -> tuple[ServiceBinding, ...]:
        """Those whose connector loaded."""
        return tuple(b for b in self._config.services if b.service in self._connectors)

    async def probe(self, binding: ServiceBinding) -> None:
        """Ask one service for ever how it is."""
        while True:
            await self._ask(binding)
            if self._state.status is (WorkerStatus.INITIALIZING if self._state.probed else WorkerStatus.IDLE):
                self._rest()
            await self._until_next_probe(binding)

    async def _until_next_probe(self, binding: ServiceBinding) -> None:
        """The pause between two, shorter where a warm-up ends in it."""
        warmup = self._ready.warmups.get(binding.service)
        if warmup is None:
            await asyncio.sleep(self._config.probe_s)
            return
        await first_of(asyncio.sleep(self._config.probe_s), warmup.ended.wait())
        warmup.ended.clear()

    async def _ask(self, binding: ServiceBinding, *, after_run: bool = False) -> None:
        """One probe; a connector is asked one thing at a time. `after_run`: the job in hand is not run any more."""
        async with self._asking[binding.service]:
            connector, busy = self._connectors[binding.service], self._state.current_job_id is not None
            report = await probed(connector, binding.service)
            report = await self._ready.of(binding.service, connector, report, busy=busy and not after_run)
            self._state.take_probe(binding.service, report)

    def _rest(self) -> None:
        """The status of a worker without a job."""
        if self._stopping.is_set():
            status = WorkerStatus.STOPPING
        elif not self._connectors:
            status = WorkerStatus.ERROR
        else:
            status = WorkerStatus.IDLE if self._state.probed else WorkerStatus.INITIALIZING
        self._state.set_status(status)

    async def say_draining(self) -> None:
        """When a stop is asked for, say that the job in hand is the last."""
        await self._stopping.wait()
        self._drains()

    def _drains(self) -> None:
        if (job_id := self._state.current_job_id) is not None:
            self._state.set_status(WorkerStatus.DRAINING, job_id=job_id)

    def may_warm_up(self) -> None:
        """No run of this worker's former life goes on."""
        self._ready.may_begin = True

    async def resume(self, job_id: str) -> None:
        """Deal with the job that this worker's former life held: ask its service, or let it be run again at once."""
        try:
            async with within():
                adopted = await self._claims.adopt(job_id)
        except AWAY as e:
            log.warning("job %s is left to its lease: %s", job_id, e or type(e).__name__)
            return
        if adopted is None:
            return
        job, run = adopted.claim.job, adopted.run
        binding = next((b for b in self.bindings if b.service == job.service), None)
        if run is not None and binding is not None and adopted.times <= MAX_ADOPTIONS:
            log.info("job %s was held by this worker's former life; its run is %s", job.id, run.ref)
            await self._take(adopted.claim, earlier=run)
            return
        words = f"worker {self._config.worker_id} ended in the middle of run {job.attempts} of {job.max_retries + 1}"
        log.warning("job %s: %s", job.id, words)
        lost = NotDone(cause=Cause.LOST, error=JobError(message=words, retryable=True))
        await self._delivery.deliver(adopted.claim, lost)

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
                pause = min(pause * 2, REDIS_PAUSE_S)
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

    async def _take(self, claim: Claimed, *, earlier: RunRef | None = None) -> None:
        """Run a job to its outcome and deliver that. `earlier`: as in Assignment."""
        job = claim.job
        self._state.set_status(WorkerStatus.BUSY, job_id=job.id)
        if self._stopping.is_set():
            self._drains()
        log.info("job %s begins: %s, run %d of %d", job.id, job.service, job.attempts, job.max_retries + 1)
        binding = next((b for b in self.bindings if b.service == job.service), None)
        runs_on = False
        if binding is None:  # lanes are matched by service, so only a damaged record comes here
            error = JobError(message=f"this worker has no service {job.service!r}", retryable=True)
            outcome: Outcome = NotDone(cause=Cause.FAILED, error=error)
        elif earlier is None and (unfit := self._unfit(claim)) is not None:
            outcome = unfit
        else:
            self._state.set_active(job.service)
            async with self._ready.using[job.service]:
                outcome, runs_on = await self._run(claim, binding, earlier)
            if _refused(outcome):
                outcome = await self._looked_into(claim, binding, outcome)
            if isinstance(outcome, NotDone) and outcome.unsaved and not is_of_full_disk(outcome.error):
                outcome = await self._without_store(outcome)
        await self._delivery.deliver(claim, outcome)
        self._state.set_active(None)
        await self._remember(job, outcome)
        if binding is not None and (runs_on or (isinstance(outcome, NotDone) and _doubtful(outcome))):
            await first_of(self._ask(binding), self._stopping.wait())
        self._rest()

    async def _remember(self, job: Job, outcome: Outcome) -> None:
        """Say which model is loaded now, so that the next job for it comes here. Not worth a second try."""
        model = model_key(job.payload) if self._config.affinity and isinstance(outcome, Done) else ""
        if model:
            with suppress(*AWAY):
                async with within():
                    await self._claims.ran(model)

    def _unfit(self, claim: Claimed) -> Outcome | None:
        """Why this worker does not run a job that it claimed: its service began anew, or lacks what the job needs."""
        job = claim.job
        if self._ready.is_warming(job.service):
            words = f"the service {job.service} began anew and is warming up"
            return NotDone(cause=Cause.HANDED_BACK, error=JobError(message=words, retryable=True))
        needs = self._ready.lacks(job.service, job.payload, self._state.capabilities())
        if needs is None or both(job.requirements.needs, needs) == job.requirements.needs:
            return None
        return Lacks(needs=needs, reason=f"worker {self._config.worker_id} does not have {needs.in_words}")

    async def _looked_into(self, claim: Claimed, binding: ServiceBinding, outcome: Outcome) -> Outcome:
        """The service refused the job. Where that is because it lost a model or a node class, others may have it."""
        self._ready.doubt(binding.service)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.lease_s / 3):  # nobody renews the lease now
                await self._ask(binding, after_run=True)
        return self._unfit(claim) or outcome

    async def _without_store(self, outcome: NotDone) -> NotDone:
        """Where nothing can be saved here, the job is not to blame: it waits for a worker that can."""
        within_s = self._config.lease_s / 3  # nobody renews the lease now
        if not await self.store.is_broken(within_s):
            return outcome
        return NotDone(cause=Cause.HANDED_BACK, error=outcome.error)

    async def _run(self, claim: Claimed, binding: ServiceBinding, earlier: RunRef | None) -> tuple[Outcome, bool]:
        """Run the job. Also whether its run goes on."""
        given = Assignment(
            claim=claim,
            connector=self._connectors[binding.service],
            binding=binding,
            artifacts=self._artifacts,
            earlier=earlier,
            machine=machine_folder(),
            previews=self._previews,
            inputs=self._inputs,
            folders=self._folders(binding.service),
        )
        run = JobRun(self._claims, given, self._config, self._stopping)
        return await run.run(), run.runs_on

    def _folders(self, service: str) -> tuple[Path, ...]:
        """Where a run of `service` writes on this host: the service's folders, ours for inputs, the machine's."""
        report = self._state.connectors[service]
        ours = (tempfile.gettempdir(), machine_folder() or "")
        return tuple(Path(folder) for folder in (report.output_folder, report.temp_folder, *ours) if folder)
