"""All jobs in memory, and what may happen to one: the queue's rules in plain Python, beside those in Lua.

It is written from the rules, not from the Lua, so that a test may hold one against the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from emp_orch.jobs.document.model import Crash, HistoryEntry, InputSource, Job, JobError, Progress, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.offers import Needs, Offers, both
from emp_orch.jobs.matching.requirements import Requirements, lane_of, unmet
from emp_orch.jobs.outcome.full_disk import is_of_full_disk
from emp_orch.store.fleet.events import Event
from emp_orch.store.queue.submit import FULL_DISK_AVOID_MS, NoSuchJob

_COMPLETE = Progress(fraction=1)


class Holding(Struct, frozen=True, kw_only=True):
    """A lease: `until_ms` is when others may take the job for lost."""

    token: str
    until_ms: int


class _PassedOver(Struct, frozen=True, kw_only=True):
    worker_id: str
    until_ms: int


class Outcome(Struct, frozen=True, kw_only=True):
    """How a run ended. `status` PENDING: the job goes back to its place. No `error`: what an earlier run said stays;
    so with `crashes`."""

    status: JobStatus
    result: Result | None = None
    error: JobError | None = None
    reason: str = ""
    counts: bool = True
    crashes: tuple[Crash, ...] | None = None


class Jobs:
    """Jobs by id, their order, leases and events. Every method is one step, whole or not at all."""

    def __init__(
        self, *, now_ms: Callable[[], int], avoid_ms: int, max_ended: int, offers: Mapping[str, Offers]
    ) -> None:
        self._offers = offers
        self.events: list[Event] = []
        self._now_ms = now_ms
        self._avoid_ms = avoid_ms
        self._max_ended = max_ended
        self._keep_ended = 0
        self._jobs: dict[str, Job] = {}
        self._asked: dict[str, Requirements] = {}
        self._place: dict[str, int] = {}
        self._next_place = 1
        self._next_token = 1
        self._holding: dict[str, Holding] = {}
        self._passed_over: dict[str, _PassedOver] = {}
        self._secrets: dict[str, Secrets] = {}
        self._ended: dict[str, None] = {}  # in the order of their ends
        self.unworkable: dict[str, str] = {}

    # --- reading

    def get(self, job_id: str) -> Job:
        """Raises NoSuchJob."""
        if job_id not in self._jobs:
            raise NoSuchJob(job_id)
        return self._as_seen(self._jobs[job_id])

    def has(self, job_id: str) -> bool:
        return job_id in self._jobs

    def asked(self, job_id: str) -> Requirements:
        """As submitted, without what workers found since."""
        return self._asked[job_id]

    def newest_first(self) -> list[Job]:
        return [self._as_seen(self._jobs[i]) for i in sorted(self._jobs, key=self._place.__getitem__, reverse=True)]

    def waiting(self) -> list[Job]:
        """In the order in which they are given out."""
        pending = [j for j in self._jobs.values() if j.status is JobStatus.PENDING]
        return sorted(pending, key=self._order)

    def waiting_in(self, lane: str) -> list[Job]:
        return [j for j in self.waiting() if j.lane == lane]

    def leased(self) -> dict[str, Holding]:
        return dict(self._holding)

    def holds(self, job_id: str, token: str) -> bool:
        """Whether `token` proves the lease: what is written without it counts for nothing."""
        held = self._holding.get(job_id)
        return held is not None and held.token == token

    def secrets_of(self, job_id: str) -> Secrets | None:
        """None: it gave some, and they are gone."""
        job = self._jobs[job_id]
        return self._secrets.get(job_id) if job.secrets else Secrets()

    @property
    def keep_secrets(self) -> tuple[str, ...]:
        """The jobs whose secrets are not forgotten yet."""
        return tuple(self._secrets)

    def best_for(self, worker_id: str, capabilities: Mapping[str, Any]) -> Job | None:
        """The first job in order that a worker of these capabilities may have now."""
        return next((j for j in self._fitting(capabilities) if self._barred_ms(j.id, worker_id) == 0), None)

    def barred_for_ms(self, worker_id: str, capabilities: Mapping[str, Any]) -> int | None:
        """How long until it may have one that it is passed over for; None when there is none."""
        waits = [self._barred_ms(j.id, worker_id) for j in self._fitting(capabilities)]
        return min((ms for ms in waits if ms > 0), default=None)

    def lost(self) -> list[Job]:
        """Those whose lease is over, longest first."""
        now = self._now_ms()
        over = [(held.until_ms, i) for i, held in self._holding.items() if held.until_ms <= now]
        return [self._jobs[i] for _, i in sorted(over)]

    # --- changing

    def add(self, job_id: str, sent: Submission) -> Job:
        """It waits at the end of its lane."""
        now = self._now_ms()
        self._place[job_id] = self._new_place()
        job = Job(
            id=job_id,
            service=sent.service,
            status=JobStatus.PENDING,
            priority=sent.priority,
            requirements=sent.requirements,
            lane=lane_of(sent.requirements),
            attempts=0,
            max_retries=sent.max_retries,
            created_ms=now,
            payload=msgspec.json.decode(msgspec.json.encode(sent.payload)),  # what the caller changes later is its own
            inputs={name: given for name, given in sent.inputs.items() if isinstance(given, InputSource)},
            secrets=sent.secrets.names,
        )
        if sent.secrets:
            self._secrets[job_id] = sent.secrets
        self._jobs[job_id] = _noted(job, now, "job_submitted")
        self._asked[job_id] = sent.requirements
        return self._as_seen(job)

    def tell_submitted(self, job_id: str) -> None:
        self._publish("job_submitted", job_id, None, JobStatus.PENDING, service=self._jobs[job_id].service)

    def tell_batch(self, job_ids: Sequence[str]) -> None:
        """One event for each lane."""
        for lane, count in Counter(self._jobs[i].lane for i in job_ids).items():
            service = next(self._jobs[i].service for i in job_ids if self._jobs[i].lane == lane)
            data = {"type": "jobs_submitted", "lane": lane, "service": service, "count": count, "status": "pending"}
            self._append("jobs_submitted", data)

    def assign(self, job_id: str, worker_id: str, lease_ms: int) -> tuple[Job, str]:
        """Give it to a worker for `lease_ms`. The job and the token."""
        now, token = self._now_ms(), f"token-{self._next_token}"
        self._next_token += 1
        self._passed_over.pop(job_id, None)
        job = self._jobs[job_id]
        job = replace(job, status=JobStatus.ASSIGNED, worker_id=worker_id, attempts=job.attempts + 1, assigned_ms=now)
        self._holding[job_id] = Holding(token=token, until_ms=now + lease_ms)
        self._jobs[job_id] = job = _noted(job, now, "job_assigned", worker_id)
        self._publish("job_assigned", job_id, worker_id, JobStatus.ASSIGNED)
        return job, token

    def renew(self, job_id: str, lease_ms: int) -> None:
        self._holding[job_id] = replace(self._holding[job_id], until_ms=self._now_ms() + lease_ms)

    def progress(self, job_id: str, progress: Progress) -> None:
        """The first makes the job IN_PROGRESS."""
        job = self._jobs[job_id]
        if job.status is JobStatus.ASSIGNED:
            job = replace(job, status=JobStatus.IN_PROGRESS, started_ms=self._now_ms())
        self._jobs[job_id] = replace(job, progress=progress)
        shown = msgspec.to_builtins(progress)
        self._publish("job_progress", job_id, job.worker_id, JobStatus.IN_PROGRESS, progress=shown)

    def end_run(self, job_id: str, outcome: Outcome) -> None:
        """Its holder, or who ended its lease, says how the run went."""
        del self._holding[job_id]
        job = replace(self._jobs[job_id], cancel_requested=False)
        if outcome.error is not None:
            job = replace(job, error=outcome.error)
        if outcome.crashes is not None:
            job = replace(job, crashes=outcome.crashes)
        if outcome.status is JobStatus.PENDING:
            full = outcome.error is not None and is_of_full_disk(outcome.error)
            self._pass_over(job_id, job.worker_id, FULL_DISK_AVOID_MS if full else self._avoid_ms)
            self._requeue(replace(job, attempts=job.attempts - (not outcome.counts)), job.worker_id, outcome.reason)
            return
        if outcome.status is JobStatus.COMPLETED:
            job = replace(job, result=outcome.result, progress=_COMPLETE, error=None)
        self._record_end(job, outcome.status, job.worker_id, outcome.reason)

    def narrow(self, job_id: str, needs: Needs, reason: str) -> Job:
        """Its holder's service lacks `needs`: it waits in the lane of those who have them."""
        del self._holding[job_id]
        job = self._jobs[job_id]
        asked = replace(job.requirements, needs=both(job.requirements.needs, needs))
        job = replace(job, requirements=asked, lane=lane_of(asked), attempts=job.attempts - 1)
        self._requeue(job, job.worker_id, reason)
        return self._jobs[job_id]

    def end_waiting(self, job_id: str, reason: str) -> None:
        """Cancel one that nobody holds."""
        self._record_end(self._jobs[job_id], JobStatus.CANCELLED, None, reason, shown="")

    def ask_to_stop(self, job_id: str, reason: str) -> bool:
        """Note that the cancellation of a running job is wanted; False when it was already."""
        job = self._jobs[job_id]
        if job.cancel_requested:
            return False
        now, who = self._now_ms(), job.worker_id
        self._jobs[job_id] = _noted(replace(job, cancel_requested=True), now, "job_cancel_requested", who, reason)
        self._publish("job_cancel_requested", job_id, who, job.status)
        return True

    def run_again(self, job_id: str) -> None:
        """An ended one waits again at its old place, with all its attempts."""
        del self._ended[job_id]
        job = replace(
            self._jobs[job_id], attempts=0, finished_ms=None, worker_id=None, error=None, result=None, crashes=()
        )
        self._requeue(job, None, "a person asked for it", shown="")

    def set_unworkable(self, lane: str, reason: str) -> None:
        """Flag a lane, or with '' take it back; the places of its jobs stay."""
        if reason:
            self.unworkable[lane] = reason
        else:
            self.unworkable.pop(lane, None)

    def purge(self, statuses: Collection[JobStatus], older_than_ms: int, keep: int) -> int:
        """Forget what ended in one of `statuses` so long ago, or (0 ms) all but the newest `keep`; how many."""
        until = self._now_ms() - older_than_ms
        old: list[str] = []
        for status in statuses:
            ended = sorted((i for i in self._ended if self._jobs[i].status is status), key=self._place.__getitem__)
            if older_than_ms > 0:
                old += [i for i in ended if (self._jobs[i].finished_ms or 0) <= until]
            else:
                old += ended[: max(0, len(ended) - keep)]
        self._forget(old)
        return len(old)

    # --- within

    def _fitting(self, capabilities: Mapping[str, Any]) -> Iterable[Job]:
        workable = (j for j in self.waiting() if j.lane not in self.unworkable)
        return (j for j in workable if not unmet(j.requirements, capabilities, offers=self._offers))

    def _order(self, job: Job) -> tuple[int, int]:
        return -job.priority, self._place[job.id]

    def _new_place(self) -> int:
        self._next_place += 1
        return self._next_place - 1

    def _barred_ms(self, job_id: str, worker_id: str) -> int:
        avoided = self._passed_over.get(job_id)
        if avoided is None or avoided.worker_id != worker_id:
            return 0
        return max(0, avoided.until_ms - self._now_ms())

    def _pass_over(self, job_id: str, worker_id: str | None, avoid_ms: int) -> None:
        if worker_id is not None:
            self._passed_over[job_id] = _PassedOver(worker_id=worker_id, until_ms=self._now_ms() + avoid_ms)

    def _requeue(self, job: Job, worker_id: str | None, reason: str, *, shown: str | None = None) -> None:
        """Back to waiting, at the place it always had. `shown`: the reason in the event, if another."""
        job = replace(job, status=JobStatus.PENDING, worker_id=None, progress=None, started_ms=None, assigned_ms=None)
        self._jobs[job.id] = _noted(job, self._now_ms(), "job_requeued", worker_id, reason)
        self._publish_why("job_requeued", job.id, worker_id, JobStatus.PENDING, reason if shown is None else shown)

    def _record_end(
        self, job: Job, status: JobStatus, worker_id: str | None, reason: str, *, shown: str | None = None
    ) -> None:
        now, kind = self._now_ms(), f"job_{status}"
        self._passed_over.pop(job.id, None)
        self._secrets.pop(job.id, None)
        self._jobs[job.id] = _noted(replace(job, status=status, finished_ms=now), now, kind, worker_id, reason)
        self._ended[job.id] = None
        self._publish_why(kind, job.id, worker_id, status, reason if shown is None else shown)
        self._forget(list(self._ended)[: max(0, len(self._ended) - max(self._max_ended, self._keep_ended))])

    def keep_ended(self, count: int) -> None:
        self._keep_ended = count

    def _forget(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            del self._ended[job_id], self._jobs[job_id], self._place[job_id], self._asked[job_id]

    def _as_seen(self, job: Job) -> Job:
        if job.status is not JobStatus.PENDING or job.lane not in self.unworkable:
            return job
        return replace(job, status=JobStatus.UNWORKABLE, error=JobError(message=self.unworkable[job.lane]))

    def _publish_why(self, kind: str, job_id: str, worker_id: str | None, status: JobStatus, reason: str) -> None:
        why = {"reason": reason} if reason else {}
        self._publish(kind, job_id, worker_id, status, **why)

    def _publish(self, kind: str, job_id: str, worker_id: str | None, status: JobStatus, **more: Any) -> None:
        data = {"type": kind, "job_id": job_id, "worker_id": worker_id, "status": str(status), **more}
        self._append(kind, data)

    def _append(self, kind: str, data: dict[str, Any]) -> None:
        self.events.append(Event(id=f"{self._now_ms()}-{len(self.events)}", type=kind, data=data))


def _noted(job: Job, now_ms: int, event: str, worker_id: str | None = None, reason: str = "") -> Job:
    entry = HistoryEntry(at_ms=now_ms, event=event, worker_id=worker_id or "", reason=reason)
    return replace(job, history=(*job.history, entry))
