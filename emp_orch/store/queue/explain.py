"""Why a job is where it is: what it asks, held against the workers as they report and as the applied fleet wants them.

It only reads. One look serves many jobs or lanes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.workers import known_workers
from emp_orch.fleet.model.defaults import STALE_AFTER_S
from emp_orch.fleet.model.observed import SeenWorker
from emp_orch.jobs.document.model import JobSummary
from emp_orch.jobs.document.states import ENDED, HELD, JobStatus
from emp_orch.jobs.matching.explain import Candidate, Explanation, Standing, explain, why_waiting
from emp_orch.jobs.matching.offers import Offers, digests_in
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.jobs.matching.workable import (
    DesiredWorker,
    Possible,
    Unworkable,
    Workable,
    judge,
    judge_all,
    workers_in_words,
)
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.queue.reads import LaneView
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.desired_workers import desired_workers
from emp_orch.store.reports.reports import Reports, read_reports


class Workers(Struct, frozen=True, kw_only=True):
    """One look at all workers. `desired`: those of the applied fleet, None when there is none.

    `offers`: digest → what a service has, of those that workers name.
    """

    candidates: tuple[Candidate, ...]
    desired: tuple[DesiredWorker, ...] | None = None
    offers: dict[str, Offers] = {}


class LaneWorkers(Struct, frozen=True, kw_only=True):
    """How many workers satisfy a lane: `able`, of which some are idle or busy, and some `down`.

    Down are those that can take nothing now: starting, paused, draining, in error, offline, or their service does not
    answer. `silent` may serve it too, but have not reported yet.
    """

    able: int = 0
    idle: int = 0
    busy: int = 0
    down: int = 0
    silent: int = 0


class Explained(Struct, frozen=True, kw_only=True):
    """`why`: one sentence. `fleet`: what the applied fleet could ever do with it, '' when none was applied.

    `workers` is empty for a job that no longer waits.
    """

    job: JobSummary
    why: str
    fleet: str
    workers: tuple[Explanation, ...]


def _candidate(seen: SeenWorker, now_ms: int, stale_ms: float) -> Candidate:
    report = seen.report
    return Candidate(
        worker_id=report.worker_id,
        reported=report.capabilities,
        status="offline" if abs(now_ms - seen.seen_ms) > stale_ms else report.status,
        current_job_id=report.current_job_id,
        connectors={name: str(c.status) for name, c in report.connector_statuses.items()},
        details={name: c.detail for name, c in report.connector_statuses.items() if c.detail},
        unloaded=report.unloaded,
        occupied={name: c.occupied_by for name, c in report.connector_statuses.items() if c.occupied_by},
    )


def _down(standing: Standing) -> bool:
    return standing not in (Standing.UNABLE, Standing.SILENT, Standing.IDLE, Standing.BUSY)


def _workers(reports: Reports, generation: Generation | None) -> Workers:
    stale_ms = (generation.fleet.reconcile.stale_after_s if generation else STALE_AFTER_S) * 1000
    found = [_candidate(reports.workers[i], reports.now_ms, stale_ms) for i in sorted(reports.workers)]
    if generation is None:
        return Workers(candidates=tuple(found))
    silent = [w for w in known_workers(generation.fleet) if w.worker_id not in reports.workers]
    found += [Candidate(worker_id=w.worker_id, known=w.capabilities) for w in silent]
    desired = desired_workers(generation, reports.machines, reports.workers)
    return Workers(candidates=tuple(found), desired=desired)


class Explainer:
    """Reads reports and the applied generation of one fleet. Raises what redis-py raises when Redis is away.

    Of thousands of workers it takes up to seconds, so a thread works it out, and streams go on meanwhile.
    """

    def __init__(self, r: Client, keys: Keys, fleet: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._offers = OffersStore(r, keys)

    async def look(self) -> Workers:
        """All workers now: those that report, then those that the fleet should have and that do not."""
        reports, generation = await asyncio.gather(read_reports(self._r, self._keys), self._generation())
        found = await asyncio.to_thread(_workers, reports, generation)
        named = {d for c in found.candidates if c.reported is not None for d in digests_in(c.reported)}
        return msgspec.structs.replace(found, offers=await self._offers.of(named)) if named else found

    async def _generation(self) -> Generation | None:
        try:
            return await read_with_members(self._r, self._keys, self._fleet)
        except EmpError:  # damaged: what the workers say can still be told
            return None

    async def why(self, job: JobSummary) -> str:
        """Why a job is where it is, in words: for a waiting one, what the workers lack or what keeps them."""
        if job.status is not JobStatus.PENDING:
            return settled(job)
        workers = await self.look()
        return waiting(await asyncio.to_thread(explain, job.requirements, workers.candidates, workers.offers))

    async def explain(self, job: JobSummary) -> Explained:
        """For each worker what stands between it and a waiting job, and what the fleet could ever do with it."""
        if job.status in ENDED or job.status in HELD:
            return Explained(job=job, why=settled(job), fleet="", workers=())
        return await asyncio.to_thread(_explained, job, await self.look())

    async def serving(self, lanes: Iterable[LaneView], workers: Workers) -> dict[str, LaneWorkers]:
        """Lane → the workers that could serve it, of one look."""
        return await asyncio.to_thread(serving, lanes, workers)


def _explained(job: JobSummary, workers: Workers) -> Explained:
    found = explain(job.requirements, workers.candidates, workers.offers)
    why = waiting(found) if job.status is JobStatus.PENDING else settled(job)
    return Explained(job=job, why=why, fleet=verdict(job.requirements, workers), workers=found)


def settled(job: JobSummary) -> str:
    """Why a job is where it is that does not wait for a worker."""
    if job.status in HELD:
        return f"worker {job.worker_id} works on it"
    return job.error.message if job.error else f"it is {job.status}"


def waiting(explanations: tuple[Explanation, ...]) -> str:
    if not explanations:
        return "no worker reports; `emp status` shows the fleet, `emp doctor` looks closer"
    return why_waiting(explanations)


def verdict(requirements: Requirements, workers: Workers) -> str:
    """Whether the applied fleet could ever run it, in words; '' when none was applied."""
    if workers.desired is None:
        return ""
    match judge(requirements, workers.desired, workers.offers):
        case Workable(able=able):
            return f"workable: {workers_in_words(len(able))} of the fleet can run it"
        case Possible(ids=ids):
            return f"possible: {workers_in_words(len(ids))} of the fleet may run it and did not report yet"
        case Unworkable(reason=reason):
            return f"unworkable: {reason}"


def serving(lanes: Iterable[LaneView], workers: Workers) -> dict[str, LaneWorkers]:
    """Lane → the workers that could serve it. Costs classes of equal workers × lanes."""
    asked = {lane.lane: lane.requirements for lane in lanes}
    by_id = {c.worker_id: c for c in workers.candidates}
    reporting = [
        DesiredWorker(worker_id=c.worker_id, known={}, reported=c.reported)
        for c in workers.candidates
        if c.reported is not None
    ]
    silent = [
        DesiredWorker(worker_id=c.worker_id, known=c.known or {}) for c in workers.candidates if c.reported is None
    ]
    able, possible = judge_all(asked, reporting, workers.offers), judge_all(asked, silent)
    counted: dict[tuple[tuple[str, ...], str], LaneWorkers] = {}  # many lanes have the same able workers
    found = {}
    for lane, requirements in asked.items():
        said, may = able[lane], possible[lane]
        ids = said.able if isinstance(said, Workable) else ()
        key = (ids, requirements.service)
        if key not in counted:
            standings = Counter(e.standing for e in explain(requirements, [by_id[i] for i in ids], workers.offers))
            counted[key] = LaneWorkers(
                able=len(ids),
                idle=standings[Standing.IDLE],
                busy=standings[Standing.BUSY],
                down=sum(n for s, n in standings.items() if _down(s)),
            )
        found[lane] = msgspec.structs.replace(counted[key], silent=len(may.ids) if isinstance(may, Possible) else 0)
    return found
