"""Says of each lane whether a worker of the fleet could ever serve it, as the fleet and its reports change."""

from __future__ import annotations

import logging

from emp_orch.fleet.observed import Observed
from emp_orch.jobs.requirements import Requirements
from emp_orch.jobs.workable import DesiredWorker, Unworkable, judge_all
from emp_orch.store.desired_workers import desired_workers
from emp_orch.store.generations import Generation
from emp_orch.store.queue import Queue

log = logging.getLogger("reconcile")


class LaneVerdicts:
    """Remembers what was judged by what: nothing is judged anew while neither lanes nor workers change."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._version = ""
        self._workers: tuple[DesiredWorker, ...] = ()
        self._lanes: dict[str, Requirements] = {}
        self._reasons: dict[str, str] = {}

    async def tend(self, current: Generation, observed: Observed) -> None:
        """Judge what is new, and write down every verdict that differs from what stands in Redis."""
        version = await self._queue.lanes_version()
        workers = desired_workers(current, observed.machines, observed.workers)
        if version != self._version:
            self._lanes = await self._queue.requirements()
        if workers != self._workers:
            self._reasons = {}
        self._version, self._workers = version, workers
        new = {sig: r for sig, r in self._lanes.items() if sig not in self._reasons}
        for sig, verdict in judge_all(new, workers).items():
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
