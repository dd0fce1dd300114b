"""The stateful suite bites: of each broken twin here it finds that it is broken.

A mutant breaks one promise and keeps the others; the suite that holds the real queue must tell it from a sound one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from emp_orch.jobs.document.model import Job, JobError
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Waiting
from emp_orch.store.queue.memory.jobs import Holding, Jobs, Outcome
from emp_orch.store.queue.memory.queue import MemoryClaims, MemoryQueue
from emp_orch.store.queue.submit import CancelOutcome, Submitted
from emp_orch.store.queue.upkeep.reaper import Swept
from support.queue.machine import QueueMachine
from support.queue.worlds import TwinWorld, World

# Enough for the rarest; it stops at the first failure, and the failure is not made small.
SEARCH = settings(
    max_examples=1000,
    stateful_step_count=60,
    deadline=None,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class NoFence(Jobs):
    """Who lost the lease may still write while another holds it."""

    def holds(self, job_id: str, token: str) -> bool:
        return job_id in self._holding


class LastInFirstOut(Jobs):
    def _order(self, job: Job) -> tuple[int, int]:
        return -job.priority, -self._place[job.id]


class NoPriority(Jobs):
    def _order(self, job: Job) -> tuple[int, int]:
        return 0, self._place[job.id]


class AnyWorkerWillDo(Jobs):
    def _fitting(self, capabilities: Mapping[str, Any]) -> Collection[Job]:
        return self.waiting()


class LosesTheJobWithItsLease(MemoryQueue):
    """The lease is gone, the job stays assigned to nobody."""

    async def reap(self) -> tuple[Swept, ...]:
        for job in self.jobs.lost():
            del self.jobs._holding[job.id]
        return ()


class LostRunsForEver(MemoryQueue):
    def run_failed(self, job: Job, cause: Cause, error: JobError, reason: str) -> JobStatus:
        if cause is Cause.LOST:
            job = replace(job, attempts=0)
        return super().run_failed(job, cause, error, reason)


class CountsAHandBack(Jobs):
    def end_run(self, job_id: str, outcome: Outcome) -> None:
        super().end_run(job_id, replace(outcome, counts=True))


class EndsTwice(Jobs):
    """An end is recorded and published again when its holder says so again."""

    def end_run(self, job_id: str, outcome: Outcome) -> None:
        held = self._holding[job_id]
        super().end_run(job_id, outcome)
        if outcome.status is JobStatus.COMPLETED:
            self._holding[job_id] = held


class PublishesAnEndTwice(Jobs):
    def end_run(self, job_id: str, outcome: Outcome) -> None:
        super().end_run(job_id, outcome)
        if outcome.status is not JobStatus.PENDING:
            self.events.append(self.events[-1])


class ForgetsToPublishARequeue(Jobs):
    def _requeue(self, job: Job, *args: Any, **kwargs: Any) -> None:
        super()._requeue(job, *args, **kwargs)
        self.events.pop()


class GivesALostJobBackAtOnce(Jobs):
    """To the very worker that lost it, while another could have it."""

    def _barred_ms(self, job_id: str, worker_id: str) -> int:
        return 0


class BarsForEver(Jobs):
    def _barred_ms(self, job_id: str, worker_id: str) -> int:
        barred = self._passed_over.get(job_id)
        return 1 if barred is not None and barred.worker_id == worker_id else 0


class ARetryGoesToTheEnd(Jobs):
    def _requeue(self, job: Job, *args: Any, **kwargs: Any) -> None:
        self._place[job.id] = self._new_place()
        super()._requeue(job, *args, **kwargs)


class APersonsRetryKeepsItsAttempts(Jobs):
    def run_again(self, job_id: str) -> None:
        attempts = self._jobs[job_id].attempts
        super().run_again(job_id)
        self._jobs[job_id] = replace(self._jobs[job_id], attempts=attempts)


class ForgetsWhatItCrashed(Jobs):
    def end_run(self, job_id: str, outcome: Outcome) -> None:
        super().end_run(job_id, replace(outcome, crashes=()))


class APersonsRetryKeepsItsCrashes(Jobs):
    def run_again(self, job_id: str) -> None:
        crashes = self._jobs[job_id].crashes
        super().run_again(job_id)
        self._jobs[job_id] = replace(self._jobs[job_id], crashes=crashes)


class RenewingDoesNothing(Jobs):
    def renew(self, job_id: str, lease_ms: int) -> None:
        pass


class ReapsWhatStands(Jobs):
    def lost(self) -> list[Job]:
        return [self._jobs[i] for i in sorted(self._holding)]


class OneTokenForAll(Jobs):
    def assign(self, job_id: str, worker_id: str, lease_ms: int) -> tuple[Job, str]:
        job, _ = super().assign(job_id, worker_id, lease_ms)
        self._holding[job_id] = Holding(token="token", until_ms=self._holding[job_id].until_ms)
        return job, "token"


class KeepsTheSecretsOfACancelledJob(Jobs):
    def end_waiting(self, job_id: str, reason: str) -> None:
        kept = self._secrets.get(job_id)
        super().end_waiting(job_id, reason)
        if kept is not None:
            self._secrets[job_id] = kept


class ForgetsSecretsBeforeTheNextRun(Jobs):
    def _requeue(self, job: Job, *args: Any, **kwargs: Any) -> None:
        super()._requeue(job, *args, **kwargs)
        self._secrets.pop(job.id, None)


class GivesOneJobToTwo(MemoryClaims):
    """Claiming it does not take it from where it waits: the next gets it, too."""

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting:
        answer = await super().claim_or_wait(capabilities)
        if isinstance(answer, Claimed) and answer.job.attempts == 1 and answer.job.priority == 5:
            self._jobs._jobs[answer.job.id] = replace(answer.job, status=JobStatus.PENDING)
        return answer


class RunsACancelledJobAgain(MemoryQueue):
    def run_failed(self, job: Job, cause: Cause, error: JobError, reason: str) -> JobStatus:
        return super().run_failed(replace(job, cancel_requested=False), cause, error, reason)


class CancelTellsNobody(MemoryQueue):
    async def cancel(self, job_id: str, *, reason: str = "") -> CancelOutcome:
        if job_id in self.leases:
            self.jobs.ask_to_stop(job_id, reason)
            return CancelOutcome.REQUESTED
        return await super().cancel(job_id, reason=reason)


class SubmitsTwice(MemoryQueue):
    async def submit(self, job: Submission) -> Submitted:
        if job.id == "a" and self.jobs.has("a"):
            return await super().submit(replace(job, id=None))
        return await super().submit(job)


class WakesNobodyOnARequeue(MemoryQueue):
    def wake_for(self, job: Job, *, model: str = "") -> None:
        if job.attempts == 0:
            super().wake_for(job, model=model)


class LeavesWithItsWake(MemoryClaims):
    async def leave(self) -> None:
        self._wakes.answered(self._worker_id)


class KeepsAWakeItDoesNotUse(MemoryClaims):
    """Woken for a job that it does not take, it lets the others sleep."""

    async def claim_or_wait(self, capabilities: Mapping[str, Any]) -> Claimed | Waiting:
        self._wakes.answered(self._worker_id)
        return await super().claim_or_wait(capabilities)


class CountsARunOfAWorkerThatLacks(Jobs):
    def narrow(self, job_id: str, needs: Needs, reason: str) -> Job:
        job = super().narrow(job_id, needs, reason)
        self._jobs[job_id] = replace(job, attempts=job.attempts + 1)
        return job


class StaysWhereItIsLacked(Jobs):
    def narrow(self, job_id: str, needs: Needs, reason: str) -> Job:
        return super().narrow(job_id, Needs(), reason)


JOBS = (
    *(ForgetsWhatItCrashed, APersonsRetryKeepsItsCrashes),
    *(CountsARunOfAWorkerThatLacks, StaysWhereItIsLacked),
    *(NoFence, LastInFirstOut, NoPriority, AnyWorkerWillDo, CountsAHandBack, EndsTwice, PublishesAnEndTwice),
    *(ForgetsToPublishARequeue, GivesALostJobBackAtOnce, BarsForEver, ARetryGoesToTheEnd),
    *(APersonsRetryKeepsItsAttempts, RenewingDoesNothing, ReapsWhatStands, OneTokenForAll),
    *(KeepsTheSecretsOfACancelledJob, ForgetsSecretsBeforeTheNextRun),
)
QUEUES = (
    *(LosesTheJobWithItsLease, LostRunsForEver, RunsACancelledJobAgain, CancelTellsNobody, SubmitsTwice),
    WakesNobodyOnARequeue,
)
CLAIMS = (GivesOneJobToTwo, LeavesWithItsWake, KeepsAWakeItDoesNotUse)


def world_of(mutant: type) -> World:
    if issubclass(mutant, Jobs):
        return TwinWorld(type("Mutant", (MemoryQueue,), {"jobs_type": mutant}))
    if issubclass(mutant, MemoryQueue):
        return TwinWorld(mutant)
    assert issubclass(mutant, MemoryClaims)
    return TwinWorld(claims_type=mutant)


@pytest.mark.parametrize("mutant", [*JOBS, *QUEUES, *CLAIMS], ids=lambda mutant: mutant.__name__)
def test_the_suite_finds(mutant: type) -> None:
    class MutantMachine(QueueMachine):
        patience_s = 1.0  # with less, a wait on a busy machine is found to fail, and then not to

        @staticmethod
        async def new_world() -> World:
            return world_of(mutant)

    with pytest.raises((AssertionError, TimeoutError)):
        run_state_machine_as_test(MutantMachine, settings=SEARCH)
