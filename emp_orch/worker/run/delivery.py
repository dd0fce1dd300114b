"""Records what came of a run, whatever Redis does meanwhile."""

from __future__ import annotations

import asyncio
import logging
from typing import assert_never

from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.redis.client import within
from emp_orch.worker.away import AWAY
from emp_orch.worker.limits import REDIS_PAUSE_S
from emp_orch.worker.run.outcome import Cancelled, Done, Lacks, Lost, NotDone, Outcome
from emp_orch.worker.state import WorkerState

log = logging.getLogger("emp.worker")


class Delivery:
    """`drain_s`: how long a worker that is told to stop tries to say what came of its last job."""

    def __init__(self, claims: Claims, state: WorkerState, stopping: asyncio.Event, *, drain_s: float) -> None:
        self._claims = claims
        self._state = state
        self._stopping = stopping
        self._drain_s = drain_s

    async def deliver(self, claim: Claimed, outcome: Outcome) -> None:
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
                give_up = give_up or loop.time() + self._drain_s
                if loop.time() > give_up:
                    log.error("job %s: its outcome could not be delivered before the stop", claim.job.id)
                    return
            await asyncio.sleep(pause)
            pause = min(pause * 2, REDIS_PAUSE_S)
        self._count(claim, outcome, status)

    async def _record(self, claim: Claimed, outcome: Outcome) -> JobStatus | None:
        match outcome:
            case Done(result=result):
                return await self._claims.completed(claim, result)
            case NotDone(cause=cause, error=error, crash=crash):
                return await self._claims.not_completed(claim, cause, error, crash=crash)
            case Cancelled(reason=reason):
                return await self._claims.cancelled(claim, reason=reason)
            case Lacks(needs=needs, reason=reason):
                return await self._claims.lacks(claim, needs, reason)
            case Lost():
                return None
            case _:
                assert_never(outcome)

    def _count(self, claim: Claimed, outcome: Outcome, status: JobStatus | None) -> None:
        if status is None:
            log.warning("job %s: the lease was lost, its outcome is dropped", claim.job.id)
            return
        words = f": {outcome.error.message}" if isinstance(outcome, NotDone) else ""
        words = f": {outcome.reason}" if isinstance(outcome, Lacks) else words
        log.info("job %s: %s%s", claim.job.id, status, words)
        if status is JobStatus.COMPLETED:
            self._state.completed += 1
        elif isinstance(outcome, NotDone) and outcome.cause is not Cause.HANDED_BACK:
            self._state.failed += 1
