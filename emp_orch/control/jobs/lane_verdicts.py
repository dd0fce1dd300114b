"""Says of each lane whether a worker of the fleet could ever serve it, as the fleet and its reports change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain

from emp_orch.fleet.desired.workers import KnownWorker, any_member, possible_workers
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import Observed
from emp_orch.jobs.matching.offers import Offers, digests_in
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.jobs.matching.workable import DesiredWorker, Unworkable, judge_all
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.queue.submit import Queue
from emp_orch.store.reports.desired_workers import desired_on

log = logging.getLogger("reconcile")


class WorkersByMachine:
    """The workers that the fleet should have, worked out again only for machines of which something changed."""

    def __init__(self) -> None:
        self._generation: Generation | None = None
        self._known: dict[MachineId, list[KnownWorker]] = {}
        self._found: dict[MachineId, tuple[DesiredWorker, ...]] = {}

    def update(self, current: Generation, observed: Observed) -> bool:
        """Take in a look; whether any worker is another than before."""
        changed = observed.changed
        anew = current is not self._generation or changed is None
        if current is not self._generation:
            fleet = current.fleet
            ids = (*(m.id for m in fleet.machines), *map(any_member, fleet.pools.values()))
            self._known = {machine_id: [] for machine_id in ids}
            for worker in possible_workers(fleet):
                self._known[worker.machine_id].append(worker)
            self._generation = current
        if anew or changed is None:
            stirred = set(self._known)
        else:
            stirred = {*changed.machines, *map(machine_of, changed.workers)} & self._known.keys()
        found = {i: desired_on(self._known[i], current, observed.machines, observed.workers) for i in stirred}
        before = self._found
        self._found = found if anew else {**before, **found}
        return any(found[i] != before.get(i) for i in found) or (anew and found.keys() != before.keys())

    @property
    def all(self) -> tuple[DesiredWorker, ...]:
        return tuple(chain.from_iterable(self._found.values()))


class LaneVerdicts:
    """Remembers what was judged by what: nothing is judged anew while neither lanes nor workers change."""

    def __init__(self, queue: Queue, offers: OffersStore) -> None:
        self._queue = queue
        self._offers = offers
        self._offers_lack = False
        self._version = ""
        self._workers = WorkersByMachine()
        self._lanes: dict[str, Requirements] = {}
        self._reasons: dict[str, str] = {}

    async def tend(self, current: Generation, observed: Observed) -> None:
        """Judge what is new, and write down every verdict that differs from what stands in Redis."""
        version = await self._queue.lanes_version()
        if version != self._version:
            self._lanes = await self._queue.requirements()
        if self._workers.update(current, observed) or self._offers_lack:
            self._reasons = {}
        self._version = version
        if new := {sig: r for sig, r in self._lanes.items() if sig not in self._reasons}:
            offers = await self._offers_for(new)
            for sig, verdict in judge_all(new, self._workers.all, offers).items():
                self._reasons[sig] = verdict.reason if isinstance(verdict, Unworkable) else ""
        standing = await self._queue.unworkable()
        for sig in self._lanes:
            reason = self._reasons[sig]
            if standing.get(sig, "") != reason and (jobs := await self._queue.judge(sig, reason)) > 0:
                told = reason or "can be run after all"
                log.log(
                    logging.WARNING if reason else logging.INFO,
                    *("lane %s: %d %s: %s", sig, jobs, "job" if jobs == 1 else "jobs", told),
                )

    async def _offers_for(self, lanes: Mapping[str, Requirements]) -> dict[str, Offers]:
        """What the workers' services have, where a lane asks for it. What Redis lost is asked for again next time."""
        if not any(r.needs is not None or r.models for r in lanes.values()):
            self._offers_lack = False
            return {}
        digests = {d for w in self._workers.all if w.reported is not None for d in digests_in(w.reported)}
        found = await self._offers.of(digests)
        self._offers_lack = len(found) < len(digests)
        return found
