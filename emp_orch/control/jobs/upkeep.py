"""What the leader does for the queue at each tick: lost jobs, jobs without a place, verdicts on lanes, retention."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from emp_orch.control.jobs.lane_verdicts import LaneVerdicts
from emp_orch.control.jobs.lost_jobs import LostJobs
from emp_orch.control.jobs.retention import Retention
from emp_orch.control.jobs.stray_jobs import StrayJobs
from emp_orch.control.leader.failures import Failures
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import JobsSpec
from emp_orch.fleet.model.observed import Observed
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import TRANSIENT, Client, time_ms
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")


class JobUpkeep:
    """All of it together; what may take long runs beside the loop, in `group`. `write` takes entries of the journal.
    `secrets`: values by reference, as the last apply resolved them.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        artifacts: Artifacts,
        group: asyncio.TaskGroup,
        write: Callable[[list[Entry]], Awaitable[None]],
        secrets: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._r = r
        self._failures = Failures()
        self._group = group
        queue = Queue(r, keys)
        self._lost = LostJobs(r, keys, artifacts, group, secrets)
        self._strays = StrayJobs(r, keys, write)
        self._verdicts = LaneVerdicts(queue, OffersStore(r, keys))
        self._retention = Retention(r, keys, queue, artifacts)
        self._deleting: asyncio.Task[None] | None = None
        self._connected_since_ms: int | None = None
        self._was_connected = False

    def lost(self) -> None:
        """Redis is away: when it is back, workers get time before their leases are looked at."""
        self._connected_since_ms = None

    async def sweep(self, current: Generation | None, still: Callable[[], None]) -> None:
        """End lost leases. Also with no fleet: jobs may be there all the same.

        `still` raises NotLeader when another may lead: asked before each step, also of what runs on beside the loop.
        """
        now_ms = await time_ms(self._r)
        if self._connected_since_ms is None:
            self._connected_since_ms = now_ms if self._was_connected else now_ms - await self._uptime_ms()
            self._was_connected = True
        connected_ms = now_ms - self._connected_since_ms
        await self._lost.sweep(current.fleet if current else None, still=still, connected_ms=connected_ms)

    async def _uptime_ms(self) -> int:
        """For how long Redis runs. A reconciler that just started knows of no other absence."""
        info = await self._r.info("server")
        return int(info.get("uptime_in_seconds", 0)) * 1000

    async def tend(self, current: Generation, observed: Observed, still: Callable[[], None]) -> None:
        """Put back what stands nowhere, judge lanes, forget old jobs, delete what they left. `still` as above."""
        still()
        tolerate = self._failures.tolerate
        await tolerate(self._strays.tend(observed.now_ms), "jobs without a place", None)
        await tolerate(self._verdicts.tend(current, observed), "verdicts on lanes", None)
        await tolerate(self._retention.tend(current.fleet.jobs, observed.now_ms), "retention", None)
        if self._deleting is None or self._deleting.done():
            self._deleting = self._group.create_task(
                self._delete(current.fleet.jobs, observed.now_ms), name="delete artifacts"
            )

    async def _delete(self, jobs: JobsSpec, now_ms: int) -> None:
        try:
            await self._retention.delete_artifacts()
            await self._retention.expire_assets(jobs.inputs, now_ms)
        except TRANSIENT:
            pass  # the list stays: the next tick goes on
        except Exception:  # nobody foresaw it; what was forgotten is not worth the fleet
            log.exception("artifacts of forgotten jobs could not be deleted")
