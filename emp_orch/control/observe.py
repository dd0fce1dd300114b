"""One look at the world: reports from Redis, machines from the runtimes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec import structs

from emp_orch.fleet.model import MachineId, RuntimeKind
from emp_orch.fleet.observed import Instance, Observed
from emp_orch.runtimes.base import Runtime
from emp_orch.store.connect import Client
from emp_orch.store.keys import Keys
from emp_orch.store.reports import read_reports


class Observer:
    """Looks again and again, and knows since when it has seen without a gap.

    `look` raises what redis-py raises when Redis is away: then everything is unknown, and nobody may act.
    """

    def __init__(self, r: Client, keys: Keys, runtimes: Mapping[RuntimeKind, Runtime], *, fresh: bool) -> None:
        self._r = r
        self._keys = keys
        self._runtimes = runtimes
        # A one-off look (`emp diff`) takes the reports' ages as they are; a daemon that has just come up
        # may be looking at a Redis that was away, and gives everybody time to be heard.
        self._since_ms: int | None = None if fresh else 0

    def lost(self) -> None:
        """Reading failed: what is silent from now on may only be silent to us."""
        self._since_ms = None

    async def look(self) -> Observed:
        reports = await read_reports(self._r, self._keys)
        if self._since_ms is None:
            self._since_ms = reports.now_ms
        # Runtimes tell times by this host's clock, and everything else by that of Redis.
        ahead_ms = reports.now_ms - int(time.time() * 1000)
        instances: dict[MachineId, Instance] = {
            machine_id: structs.replace(found, started_ms=found.started_ms + ahead_ms)
            for runtime in self._runtimes.values()
            for machine_id, found in (await runtime.instances()).items()
        }
        return Observed(
            now_ms=reports.now_ms,
            observing_since_ms=self._since_ms,
            machines=reports.machines,
            workers=reports.workers,
            instances=instances,
            answered=tuple(self._runtimes),
            malformed=reports.malformed,
        )
