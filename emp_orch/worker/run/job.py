"""One claimed job: run it on its connector under its lease, watch for reasons to stop, name the outcome."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

import msgspec

from emp_orch.connectors import sanitise
from emp_orch.connectors.base import Recovers, Run, RunFailed, Sink
from emp_orch.connectors.http.client import NETWORK
from emp_orch.connectors.secrecy import kept_out_of_the_log
from emp_orch.host import notice
from emp_orch.jobs.document.model import JobError, Output, Progress, Result
from emp_orch.jobs.document.secrets import Redaction, Secrets, forgotten
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.artifacts.url import CannotStore
from emp_orch.store.queue.claim import Claims, Lease
from emp_orch.store.redis.client import within
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import WorkerConfig
from emp_orch.worker.files.input_urls import CannotFetch
from emp_orch.worker.files.store import RunSink
from emp_orch.worker.limits import INTERRUPT_S
from emp_orch.worker.run import full_disk
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.outcome import Cancelled, Done, Lost, NotDone, Outcome
from emp_orch.worker.run.preview import Showing
from emp_orch.worker.run.service_exits import TOLD_S, ServiceEnd, ServiceEnds

log = logging.getLogger("emp.worker")

T = TypeVar("T")

# Progress is published at most this often; the latest value wins.
PROGRESS_EVERY_S = 0.25
RETRY_S = 0.5
# What only a longer run needs, above all to be told to stop, begins when it is one.
LONGER_S = 0.05
# What is done beside a run begins when its service is likely to have been asked for it.
REQUEST_S = 0.001


class Stop(StrEnum):
    """Why a run is stopped before its end."""

    CANCEL = "cancel"
    LOST = "lost"
    TIMEOUT = "timeout"
    DRAIN = "drain"
    SERVICE_ENDED = "its service ended"


STOPS: dict[Lease, Stop | None] = {Lease.OK: None, Lease.CANCEL: Stop.CANCEL, Lease.LOST: Stop.LOST}


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of `call`, tried again while Redis is away."""
    while True:
        try:
            async with within():
                return await call()
        except AWAY:
            await asyncio.sleep(RETRY_S)


class _Noting:
    """A sink that notes whether something is saved."""

    def __init__(self, sink: Sink, note: Callable[[bool], None]) -> None:
        self._sink = sink
        self._note = note

    def begin_anew(self) -> None:
        self._note(False)
        self._sink.begin_anew()

    async def save(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> Output:
        self._note(True)
        return await self._sink.save(name, content_type, chunks)


class JobRun:
    """The run of one claim on one connector."""

    def __init__(self, claims: Claims, given: Assignment, config: WorkerConfig, stopping: asyncio.Event) -> None:
        self._claims = claims
        self._given = given
        self._claim = given.claim
        self._connector = given.connector
        self._config = config
        self._stopping = stopping
        self._latest = Progress(fraction=0.0)
        self._progressed = asyncio.Event()
        # The first message says that the run has begun: with it, or at once where the connector does not say when.
        if not isinstance(given.connector, Recovers):
            self._progressed.set()
        self._begun = self._saved = self._broken = False
        self._ends = ServiceEnds(given.machine, given.binding.service, config.gpu)
        self._fetching = False
        # The service was asked to stop the run, and did not.
        self.runs_on = False
        self._ref = ""
        self._recording: asyncio.Task[Stop | None] | None = None
        self._watchers: list[asyncio.Task[Stop | None]] = []
        self._stop: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._redaction = Redaction({})
        self._showing = Showing(given.previews, given.claim.job.id)

    async def run(self) -> Outcome:
        """The outcome. Only cancellation of the caller is raised."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            run = self._tasks.create_task(self._on_connector(), name=f"run {self._claim.job.id}")
            self._watch(self._publish())
            longer = loop.call_later(LONGER_S, self._watch_longer)
            try:
                awaited: tuple[asyncio.Future[Any], ...] = (run, self._stop)
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if run.done():
                    return self._own_cancellation() if run.cancelled() else await self._explained(run.result())
                log.info("job %s is stopped: %s", self._claim.job.id, self._stop.result())
                return await self._stopped(run, self._stop.result())
            finally:
                longer.cancel()
                for task in (run, *self._watchers):
                    task.cancel()

    def _watch(self, watch: Coroutine[Any, Any, Stop | None]) -> asyncio.Task[Stop | None]:
        """Have the run stopped when `watch` gives a reason; the first counts."""

        def over(task: asyncio.Task[Stop | None]) -> None:
            if not task.cancelled() and not task.exception() and (reason := task.result()) and not self._stop.done():
                self._stop.set_result(reason)

        task = self._tasks.create_task(watch)
        task.add_done_callback(over)
        self._watchers.append(task)
        return task

    def _watch_longer(self) -> None:
        self._progressed.set()
        for watch in (
            *(self._keep_lease(), self._cancel_notice(), self._too_long(), self._drained(), self._service_ended()),
            self._showing.run(),
        ):
            self._watch(watch)

    async def _on_connector(self) -> Outcome:
        """The outcome in a form that can be recorded, whatever the connector gave, without the job's secrets."""
        secrets = await patiently(partial(self._claims.secrets, self._claim))
        if secrets is None:
            words = f"the job cannot run: {forgotten(self._claim.job.secrets)}; submit it again"
            return NotDone(cause=Cause.FAILED, error=JobError(message=words))
        self._redaction = Redaction(secrets.values)
        with kept_out_of_the_log(self._redaction):
            match await self._given_by_connector(secrets):
                case Done(result=result) if fault := sanitise.fault_of(result):
                    words = self._redaction.text(f"connector {self._connector.kind}: {fault}")
                    return NotDone(cause=Cause.FAILED, error=JobError(message=words))
                case Done(result=result):
                    return Done(result=self._redaction.result(result))
                case NotDone(error=error) as outcome:
                    error = self._redaction.error(sanitise.error_of(error))
                    error = await full_disk.told(error, self._config.machine_id, self._given.folders)
                    return msgspec.structs.replace(outcome, error=error)
                case outcome:
                    return outcome

    async def _given_by_connector(self, secrets: Secrets) -> Outcome:
        async def on_progress(progress: Progress) -> None:
            self._latest = self._redaction.progress(sanitise.progress_of(progress))
            self._progressed.set()

        async def on_began(ref: str) -> None:
            self._begun = True
            if len(ref) > sanitise.MAX_REF_CHARS:
                log.warning("job %s: its service's id of the run is too long to be recorded", self._claim.job.id)
                return
            self._ref = sanitise.words(ref)
            self._recording = self._watch(self._record_ref(self._ref, self._recording))
            # A run whose id nobody was told of would be nobody's, should this process end now. Redis' answer is not
            # waited for: what was written to it arrives. It is written in two turns of the loop at most.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._watch(self._beside(sink))

        job = self._claim.job
        try:
            sink = self._given.artifacts.run(job.id, self._claim.run)
            run = Run(
                job=job,
                sink=_Noting(sink, self._note_saved),
                on_progress=on_progress,
                on_began=on_began,
                on_preview=self._showing.take,
                secrets=secrets.values,
            )
            result = await self._recovered(run)
            if result is None:
                result = await self._with_inputs(run)
            if isinstance(result, Result):
                return Done(result=result)
            # Another's connector: what is not a Result is not a success, whatever it holds.
            words = f"the connector {self._connector.kind} gave {type(result).__name__} instead of a Result"
            return NotDone(cause=Cause.FAILED, error=JobError(message=words))
        except RunFailed as e:
            self._broken = isinstance(e.__cause__, NETWORK)
            if not e.reached and not self._begun and self._given.earlier is None:
                return NotDone(cause=Cause.HANDED_BACK, error=JobError(message=e.error.message, retryable=True))
            return NotDone(cause=Cause.FAILED, error=e.error)
        except CannotFetch as e:
            return NotDone(cause=Cause.FAILED, error=JobError(message=e.message, retryable=e.retryable))
        except CannotStore as e:
            error = JobError(message=e.message, retryable=e.retryable)
            return NotDone(cause=Cause.FAILED, error=error, unsaved=e.retryable)
        except Exception as e:  # a faulty connector fails its job, not the worker
            log.exception("connector %s failed on job %s", self._connector.kind, self._claim.job.id)
            words = f"the connector {self._connector.kind} broke: {type(e).__name__}: {e}"
            return NotDone(cause=Cause.FAILED, error=JobError(message=words))

    def _note_saved(self, saved: bool) -> None:
        self._saved = saved

    async def _explained(self, outcome: Outcome) -> Outcome:
        """`outcome` with the end of the service for its reason, where that is why; nothing for what will not help."""
        if not isinstance(outcome, NotDone) or not outcome.error.retryable or outcome.cause is Cause.TIMEOUT:
            return outcome
        found = await self._ends.within(TOLD_S if self._broken else 0)
        return outcome if found is None else self._crashed(found)

    def _crashed(self, found: ServiceEnd) -> NotDone:
        """A run during which its service ended. What had not begun is not to blame, nor what was through."""
        error = self._redaction.error(sanitise.error_of(found.error))
        log.warning("job %s: %s", self._claim.job.id, error.message)
        if found.asked or (not self._begun and not self._given.earlier):
            return NotDone(cause=Cause.HANDED_BACK, error=error)
        crash = None if self._saved else found.crash(self._config.worker_id)
        return NotDone(cause=Cause.CRASHED, error=error, crash=crash)

    async def _recovered(self, run: Run) -> Any:
        """What the earlier run came to, followed to its end; None when there is nothing to have of it."""
        earlier = self._given.earlier
        if earlier is None or earlier != self._given.named(earlier.ref) or not isinstance(self._connector, Recovers):
            return None
        log.info("job %s: asking what became of its run %s", run.job.id, earlier.ref)
        return await self._connector.recover(run, earlier.ref, wait=True)

    async def _with_inputs(self, run: Run) -> Any:
        """The connector's result, once the job's input files are there."""
        if not run.job.inputs or self._given.inputs is None:
            return await self._connector.run(run)
        async with contextlib.AsyncExitStack() as open_:
            self._fetching = True
            try:
                inputs = await open_.enter_async_context(
                    self._given.inputs.of(
                        self._claim, lambda words: run.progress(Progress(fraction=0.0, message=words))
                    )
                )
            finally:
                self._fetching = False
            return await self._connector.run(dataclasses.replace(run, inputs=inputs))

    def _own_cancellation(self) -> Outcome:
        """Nobody here cancelled the run: its connector awaited something that was."""
        words = f"the connector {self._connector.kind} broke: it cancelled itself"
        log.error("job %s: %s", self._claim.job.id, words)
        return NotDone(cause=Cause.FAILED, error=JobError(message=words))

    async def _stopped(self, run: asyncio.Task[Outcome], reason: Stop) -> Outcome:
        """Interrupt the service, give the run a moment to end, and say what that makes of the job."""
        ignored = ""
        if self._fetching:  # the service knows nothing of it yet
            run.cancel()
            await asyncio.wait([run])
        if reason is not Stop.SERVICE_ENDED:
            ignored = await self._interrupt(run)
        if not run.done():
            self.runs_on = reason is not Stop.SERVICE_ENDED
            run.cancel()
            await asyncio.wait([run])
        if reason is Stop.LOST:
            return Lost()
        if not run.cancelled() and isinstance(outcome := run.result(), Done):
            return outcome  # it was through before the interruption reached it
        match reason:
            case Stop.SERVICE_ENDED:
                found = self._ends.found()
                words = "its service ended"  # somebody removed the word of it meanwhile
                gone = NotDone(cause=Cause.CRASHED, error=JobError(message=words, retryable=True))
                return gone if found is None else self._crashed(found)
            case Stop.CANCEL:
                return Cancelled(reason=ignored)
            case Stop.TIMEOUT:
                words = f"it ran longer than {self._config.job_timeout_s:g} s" + (f", and {ignored}" if ignored else "")
                return NotDone(cause=Cause.TIMEOUT, error=JobError(message=words, retryable=True))
            case Stop.DRAIN:
                notice.note_returned(self._given.machine)
                words = f"worker {self._config.worker_id} shuts down"
                return NotDone(cause=Cause.HANDED_BACK, error=JobError(message=words, retryable=True))

    async def _interrupt(self, run: asyncio.Task[Outcome]) -> str:
        """Have the service stop the run; what is to be said when it was told to, and did not."""
        ignored = ""
        try:
            async with asyncio.timeout(INTERRUPT_S):
                await self._connector.cancel()
                ignored = " ".join(filter(None, ("its run", self._ref, "ignores the interrupt")))
                await asyncio.wait([run])
        except (RunFailed, TimeoutError) as e:
            log.warning("the service did not stop the run: %s", e or ignored or "no answer in time")
        except Exception:  # a faulty connector fails its job, not the worker
            log.exception("connector %s failed to stop job %s", self._connector.kind, self._claim.job.id)
        return "" if run.done() else ignored

    # reasons to stop

    async def _keep_lease(self) -> Stop:
        while True:
            await asyncio.sleep(self._config.lease_s / 3)
            if stop := STOPS[await patiently(partial(self._claims.renew, self._claim))]:
                return stop

    async def _publish(self) -> Stop:
        while True:
            await self._progressed.wait()
            self._progressed.clear()
            # The latest at each try: Redis may be away for a while.
            if stop := STOPS[await patiently(lambda: self._claims.progress(self._claim, self._latest))]:
                return stop
            await asyncio.sleep(PROGRESS_EVERY_S)

    async def _beside(self, sink: RunSink) -> None:
        """What need not be done before the service is asked, and is done by when it has an output."""
        await asyncio.sleep(REQUEST_S)
        self._progressed.set()
        await sink.prepare()

    async def _record_ref(self, ref: str, before: asyncio.Task[Stop | None] | None) -> Stop | None:
        """Record the service's id of the run, after the one before it."""
        named = self._given.named(ref)
        log.info("job %s is %s on %s", self._claim.job.id, named.ref, named.url)
        if before is not None:
            await asyncio.wait([before])
        return STOPS[await patiently(partial(self._claims.began, self._claim, named))]

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

    async def _service_ended(self) -> Stop:
        """At once, where the connector would wait for it to come back. What is being saved may be had from the next."""
        await self._ends.wait()
        if self._saved:
            await asyncio.Event().wait()  # until the run is over by itself
        return Stop.SERVICE_ENDED

    async def _drained(self) -> Stop:
        await self._stopping.wait()
        await asyncio.sleep(notice.left_s(self._given.machine, self._config.drain_timeout_s))
        return Stop.DRAIN
