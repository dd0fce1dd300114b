"""What a worker says of itself, and the task that says it: report, heartbeat, events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from typing import Any

import msgspec

from emp_orch import __version__
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, WorkerReport, WorkerStatus
from emp_orch.jobs.matching.offers import SERVICE_OFFERS
from emp_orch.plaintext import one_line
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis.client import Client, time_ms, within
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import Call
from emp_orch.store.reports.reports import worker_writer
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import WorkerConfig
from emp_orch.worker.services.hardware import find_hardware, merged
from emp_orch.worker.services.occupancy import Occupied

log = logging.getLogger("emp.worker")

# Events kept for a Redis that is away; the oldest go first.
MAX_UNSENT = 1_000
# What changes within so long is one report, which wakes everybody who follows the events: a job begins with two changes
# and ends with two, and a short one is both.
GATHER_S = 0.05
# Of a reason that a report holds.
MAX_STORE_ERROR = 500
_ANSWERS = frozenset({ConnectorStatus.IDLE, ConnectorStatus.ACTIVE})


class WorkerState:
    """The present state. Every change is reported within GATHER_S and published as an event."""

    def __init__(self, config: WorkerConfig, *, redis: str = "") -> None:
        """`redis` is where its Redis is, fit to be shown."""
        self._config = config
        self._redis = redis
        given = config.capabilities
        self._hardware = merged(find_hardware(config.gpu, os.environ), given.get("hardware"))
        self._started_ms = int(time.time() * 1000)
        self.status = WorkerStatus.INITIALIZING
        self.current_job_id: str | None = None
        self.completed = 0
        self.failed = 0
        self._active: str | None = None
        self.loaded: tuple[str, ...] = ()
        self._store_error = ""
        starting = ConnectorReport(status=ConnectorStatus.STARTING)
        self.connectors: dict[str, ConnectorReport] = {b.service: starting for b in config.services}
        self._occupied = Occupied(config.job_timeout_s)
        self.changed = asyncio.Event()
        self.able_changed = asyncio.Event()
        self.unsent: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MAX_UNSENT)

    def about(self) -> dict[str, Any]:
        return {"worker_id": self._config.worker_id, "machine_id": self._config.machine_id}

    def set_active(self, service: str | None) -> None:
        """Which service works on this worker's job; None when none does."""
        before, self._active = self._active, service
        for name in (before, service):
            if name in self.connectors:
                self.set_connector(name, self.connectors[name])

    def set_status(self, status: WorkerStatus, *, job_id: str | None = None) -> None:
        self.current_job_id = job_id
        if status is not self.status:
            data = {**self.about(), "status": status, "previous": self.status, "job_id": job_id}
            self.unsent.append(("worker_status", data))
            self.status = status
        self.changed.set()

    def set_store_error(self, why: str) -> None:
        """Why what jobs make cannot be saved; empty when it can. Without, no job is begun here."""
        before, self._store_error = self._store_error, one_line(why)[:MAX_STORE_ERROR]
        if before != self._store_error:
            self.changed.set()
            self.able_changed.set()

    def take_probe(self, service: str, report: ConnectorReport) -> None:
        """Take what a probe said."""
        self.set_connector(service, self._occupied.judged(service, report, time.monotonic()))

    @property
    def undated(self) -> bool:
        """Whether it is not known yet by Redis' clock since when a service is occupied."""
        return self._occupied.undated

    def date(self, now_ms: int) -> None:
        for service in self._occupied.date(now_ms):
            self.set_connector(service, msgspec.structs.replace(self.connectors[service], occupied_ms=now_ms))

    def set_connector(self, service: str, report: ConnectorReport) -> None:
        """Take how a service is; `idle` becomes `active` while that service works on this worker's job."""
        if report.status in _ANSWERS:
            status = ConnectorStatus.ACTIVE if service == self._active else ConnectorStatus.IDLE
            report = msgspec.structs.replace(report, status=status)
        before, was_able = self.connectors[service], self._is_able(service)
        if report == before:
            return
        self.connectors[service] = report
        if report.offers != before.offers:
            self.able_changed.set()
        if self._is_able(service) != was_able:
            self.able_changed.set()
        if report.occupied_by != before.occupied_by:
            log.info("service %s is %s", service, f"occupied by {report.occupied_by}" if report.occupied_by else "free")
        if report.status is not before.status:
            said = {"status": report.status, "previous": before.status, "detail": report.detail}
            data = {**self.about(), "service": service, **said}
            self.unsent.append(("connector_status", data))
            if (report.status in _ANSWERS) != (before.status in _ANSWERS) or report.detail:
                log.info(
                    "connector of %s: %s%s", service, report.status, f" ({report.detail})" if report.detail else ""
                )
        self.changed.set()

    @property
    def probed(self) -> bool:
        """Whether every connector has answered once, well or badly."""
        return all(c.status is not ConnectorStatus.STARTING for c in self.connectors.values())

    def capabilities(self, *, only_able: bool = False) -> dict[str, Any]:
        """What this worker can do. `only_able`: without services that do not answer, or are at something else."""
        services = [s for s in self.loaded if not only_able or self._is_able(s)]
        own = {"gpu": self._config.gpu, **self._config.capabilities}
        offers = {s: c.offers for s in self.loaded if (c := self.connectors[s]).offers}
        return {**own, **({SERVICE_OFFERS: offers} if offers else {}), "hardware": self._hardware, "services": services}

    def _is_able(self, service: str) -> bool:
        connector = self.connectors[service]
        return not self._store_error and connector.status in _ANSWERS and not connector.occupied_by

    def report(self) -> WorkerReport:
        return WorkerReport(
            worker_id=self._config.worker_id,
            machine_id=self._config.machine_id,
            gpu=self._config.gpu,
            status=self.status,
            capabilities=self.capabilities(),
            connector_statuses=dict(self.connectors),
            started_ms=self._started_ms,
            pid=os.getpid(),
            current_job_id=self.current_job_id,
            package=os.environ.get("EMP_PACKAGE") or f"emp-orch {__version__}",
            jobs_completed=self.completed,
            jobs_failed=self.failed,
            redis=self._redis,
            store_error=self._store_error,
        )


class Reporter:
    """Writes the worker's report on each change and every heartbeat, and its events in order."""

    def __init__(self, r: Client, keys: Keys, config: WorkerConfig, state: WorkerState, call: Call) -> None:
        """`call` sends a command."""
        self._r = r
        self._writer = worker_writer(r, keys, config.worker_id, call)
        self._events = Events(r, keys)
        self._config = config
        self._state = state
        self._registered = self._away = False

    async def run(self) -> None:
        """Report for ever. A Redis that is away is mentioned once, and again when it is back."""
        while True:
            self._state.changed.clear()
            try:
                async with within():
                    if self._state.undated:
                        self._state.date(await time_ms(self._r))
                    await self._tell()
                if self._away:
                    log.info("Redis is back")
                self._away = False
            except AWAY as e:
                if not self._away:
                    log.warning("Redis is away, going on without it: %s", e or type(e).__name__)
                self._away = True
            await self._pause()

    async def _pause(self) -> None:
        if self._away:  # a change must not make a loop without rest of it
            await asyncio.sleep(min(1.0, self._config.heartbeat_s))
            return
        # asyncio.timeout, not wait_for: that one can drop a cancellation (Python 3.11).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.heartbeat_s):
                await self._state.changed.wait()
                await asyncio.sleep(GATHER_S)

    async def _tell(self) -> None:
        """Write the report, and in the same instant what happened since the last."""
        first = {**self._state.about(), "status": self._state.status}
        unsent = list(self._state.unsent)
        events = unsent if self._registered else [("worker_registered", first), *unsent]
        await self._writer.write(self._state.report(), events)
        for event in unsent:
            if self._state.unsent and self._state.unsent[0] is event:  # the oldest may have gone meanwhile
                self._state.unsent.popleft()
        if not self._registered:
            log.info("Worker registered: %s on machine %s", self._config.worker_id, self._config.machine_id)
        self._registered = True

    async def withdraw(self) -> None:
        """Remove the report, so that nobody takes this worker for one that fell silent."""
        self._state.set_status(WorkerStatus.OFFLINE)
        try:
            async with within():
                for type_, data in self._state.unsent:
                    await self._events.append(type_, **data)
                await self._writer.withdraw()
        except AWAY as e:
            log.warning("could not withdraw the report: %s", e or type(e).__name__)
