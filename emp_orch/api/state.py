"""The whole state in one look. It only reads: looking never changes what is looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import TypeVar

from msgspec import Struct, structs

from emp_orch import __version__
from emp_orch.api.views.fleet import (
    ApiView,
    BreakerView,
    CountsView,
    DesiredMachineView,
    DriftView,
    FleetView,
    MachineView,
    OverrideView,
    ReconcilerView,
    RedisLossView,
    RolloutView,
    State,
    SystemStats,
    WorkerView,
)
from emp_orch.api.views.jobs import JobsView, read_jobs
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.drift.incremental import few
from emp_orch.fleet.model.defaults import STALE_AFTER_S
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import Malformed, SeenMachine, SeenWorker
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.pauses import fleet_pause
from emp_orch.fleet.policy.silence import is_silent
from emp_orch.jobs.outcome.losses import Loss
from emp_orch.seals import Seal
from emp_orch.store.fleet.generations import Generation, generation_mark, read_generation
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.status import BreakerStatus, FleetStatus, RolloutStatus, decode_status, read_status
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import MAX_FLEET_BYTES
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import Reports, read_reports
from emp_orch.web.times import now_ms, rfc3339

OFFLINE = "offline"

T = TypeVar("T")


class ApiStats:
    """What the API counts of itself."""

    def __init__(self) -> None:
        self.started_ms = now_ms()
        self.sse_clients = 0
        self.ws_clients = 0
        self.startup_events = 0

    def view(self) -> ApiView:
        return ApiView(
            version=__version__,
            started_at=rfc3339(self.started_ms),
            uptime_s=round((now_ms() - self.started_ms) / 1000, 1),
            sse_clients=self.sse_clients,
            ws_clients=self.ws_clients,
        )


class Whole(Struct, frozen=True, kw_only=True):
    """A state, and what it was made of. `status_text` is as it stands in Redis."""

    state: State
    malformed: tuple[Malformed, ...]
    generation: Generation | EmpError | None
    status: FleetStatus | EmpError | None
    status_text: bytes | str | None


class StateReader:
    """Reads and composes. Between two looks it keeps only what a generation desires: that never changes.

    `seal` gives the fleet's key, to tell its own orders from others; None where it has none.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        fleet: str,
        queue: Queue,
        stats: ApiStats,
        seal: Callable[[], Seal | None] = lambda: None,
    ) -> None:
        self._r = r
        self._keys = keys
        self.fleet = fleet
        self._queue = queue
        self._stats = stats
        self._seal = seal
        self.refuses = ""  # why Redis takes no writes, as far as we heard
        self._desired: tuple[tuple[int, int, str], tuple[DesiredMachineView, ...]] = ((0, 0, ""), ())

    def note(self, refuses: str) -> None:
        self.refuses = refuses

    async def overrides(self) -> tuple[Override, ...]:
        """What stands, as the reconciler takes it."""
        return await read_overrides(self._r, self._keys, self.fleet, self._seal())

    async def read(self) -> State:
        """Raises what redis-py raises when Redis is away."""
        return (await self.look()).state

    async def look(self) -> Whole:
        """All there is, with what it was made of. Raises as `read`."""
        generation = await _or_error(read_generation(self._r, self._keys, self.fleet))
        desired = self._desired_by(generation) if isinstance(generation, Generation) else ()
        workers_wanted = {worker_id(MachineId(m.id), slot) for m in desired for slot in range(m.num_gpus)}
        reports, status_text, overrides, jobs = await asyncio.gather(
            read_reports(self._r, self._keys, chain((m.id for m in desired), workers_wanted)),
            self.status_text(),
            self.overrides(),
            self.jobs(),
        )
        reports = structs.replace(
            reports,
            machines=few(reports.machines, {MachineId(m.id) for m in desired}),
            workers=few(reports.workers, workers_wanted),
        )
        status = self.decoded(status_text)
        reconciler = reconciler_view(status, reports.now_ms)
        fleet = fleet_view(self.fleet, generation, desired, status, reconciler, overrides, self.refuses)
        machines, workers = _report_views(reports, fleet)
        drift = [drift_view(d) for d in status.drift] if isinstance(status, FleetStatus) else []
        state = State(
            machines=machines,
            workers=workers,
            jobs=jobs,
            drift=drift,
            fleet=fleet,
            system_stats=self.stats_view(
                Counter(m.status for m in machines),
                Counter(w.status for w in workers),
                len(drift),
                len(reports.malformed),
                reconciler,
            ),
        )
        return Whole(
            state=state,
            malformed=reports.malformed,
            generation=generation,
            status=status,
            status_text=status_text,
        )

    async def status_text(self) -> bytes | str | None:
        """As it stands in Redis, and not more of it than a status can have."""
        return await self._r.getrange(self._keys.status(self.fleet), 0, MAX_FLEET_BYTES) or None

    async def mark(self, number: int) -> str:
        """What says, beside the number that was known, whether it is the same generation still."""
        return await generation_mark(self._r, self._keys, self.fleet, number)

    async def jobs(self) -> JobsView:
        return await read_jobs(self._queue)

    def decoded(self, status_text: bytes | str | None) -> FleetStatus | EmpError | None:
        """A damaged document is shown as an error, and hides nothing else."""
        try:
            return decode_status(status_text, self._keys.status(self.fleet))
        except EmpError as e:
            return e

    def stats_view(
        self,
        machines: Counter[str],
        workers: Counter[str],
        drift: int,
        malformed: int,
        reconciler: ReconcilerView,
    ) -> SystemStats:
        return SystemStats(
            machines=_counts(machines),
            workers=_counts(workers),
            drift=drift,
            malformed=malformed,
            redis={"ok": True},
            reconciler=reconciler,
            api=self._stats.view(),
        )

    def _desired_by(self, generation: Generation) -> tuple[DesiredMachineView, ...]:
        """What `generation` desires. For 1,000 machines that takes 200 ms to work out, so it is done once."""
        which = (generation.number, generation.at_ms, generation.digest)
        if self._desired[0] != which:
            self._desired = (which, _desired(generation))
        return self._desired[1]

    async def status(self) -> FleetStatus | None:
        return await read_status(self._r, self._keys, self.fleet)


async def _or_error(reading: Awaitable[T]) -> T | EmpError:
    """As `StateReader.decoded` has it."""
    try:
        return await reading
    except EmpError as e:
        return e


def _counts(counted: Counter[str]) -> CountsView:
    return CountsView(total=counted.total(), by_status={s: n for s, n in sorted(counted.items()) if n})


def _report_views(reports: Reports, fleet: FleetView) -> tuple[list[MachineView], list[WorkerView]]:
    """What is shown of all reports, in order."""
    stale_ms = fleet.stale_after_s * 1000
    workers = sorted(
        (worker_view(w, reports.now_ms, stale_ms) for w in reports.workers.values()),
        key=lambda w: (w.machine_id, w.gpu, w.worker_id),
    )
    by_machine: dict[str, list[str]] = {}
    for w in workers:
        by_machine.setdefault(w.machine_id, []).append(w.worker_id)
    wanted = {m.id for m in fleet.machines}
    machines = [
        machine_view(m, reports.now_ms, stale_ms, i in wanted, by_machine.get(i, []))
        for i, m in sorted(reports.machines.items())
    ]
    return machines, workers


def machine_view(seen: SeenMachine, now: int, stale_ms: float, desired: bool, workers: list[str]) -> MachineView:
    r = seen.report
    stale = abs(now - seen.seen_ms) > stale_ms  # what is to come was not heard
    return MachineView(
        machine_id=r.machine_id,
        status=OFFLINE if stale else r.status,
        reported_status=r.status,
        stale=stale,
        desired=desired,
        boot_id=r.boot_id,
        generation=r.generation,
        config_hash=r.config_hash,
        num_gpus=r.num_gpus,
        programs={str(k): v for k, v in r.programs.items()},
        gpus=r.gpus,
        host=r.host,
        agent_version=r.agent_version,
        package=r.package,
        package_error=r.package_error,
        health_port=r.health_port,
        started_at=rfc3339(r.started_ms),
        last_seen=rfc3339(seen.seen_ms),
        age_s=max(0, now - seen.seen_ms) / 1000,
        error=r.error,
        workers=workers,
    )


def worker_view(seen: SeenWorker, now: int, stale_ms: float) -> WorkerView:
    r = seen.report
    stale = abs(now - seen.seen_ms) > stale_ms  # what is to come was not heard
    return WorkerView(
        worker_id=r.worker_id,
        machine_id=r.machine_id,
        gpu=r.gpu,
        status=OFFLINE if stale else r.status,
        reported_status=r.status,
        stale=stale,
        capabilities=r.capabilities,
        connector_statuses=r.connector_statuses,
        # What a silent one was at may be done elsewhere by now: the queue knows, not its last word.
        current_job_id=None if stale else r.current_job_id,
        package=r.package,
        jobs_completed=r.jobs_completed,
        jobs_failed=r.jobs_failed,
        pid=r.pid,
        started_at=rfc3339(r.started_ms),
        last_seen=rfc3339(seen.seen_ms),
        age_s=max(0, now - seen.seen_ms) / 1000,
    )


def drift_view(d: Item) -> DriftView:
    return DriftView(
        key=d.drift.key,
        kind=d.drift.kind,
        machine_id=d.drift.machine_id,
        subject=d.drift.subject,
        program=d.drift.program,
        desired=d.drift.desired,
        observed=d.drift.observed,
        cause=d.drift.cause,
        origin=d.drift.origin,
        since=rfc3339(d.since_ms),
        action=d.action,
        held=d.held,
        attempts=d.attempts,
        last_attempt=None if d.last_attempt_ms is None else rfc3339(d.last_attempt_ms),
        next_attempt=None if d.next_attempt_ms is None else rfc3339(d.next_attempt_ms),
        hold=d.hold,
        failed=d.failed,
    )


def reconciler_view(status: FleetStatus | EmpError | None, now: int) -> ReconcilerView:
    if not isinstance(status, FleetStatus):
        error = status.message if isinstance(status, EmpError) else ""
        return ReconcilerView(alive=False, as_of=None, age_s=None, leader="", epoch=0, error=error)
    age_ms = max(0, now - status.at_ms)
    return ReconcilerView(
        alive=not is_silent(age_ms, status.interval_ms),
        as_of=rfc3339(status.at_ms),
        age_s=age_ms / 1000,
        leader=status.leader,
        epoch=status.epoch,
    )


def fleet_view(
    name: str,
    generation: Generation | EmpError | None,
    desired: tuple[DesiredMachineView, ...],
    status: FleetStatus | EmpError | None,
    reconciler: ReconcilerView,
    overrides: tuple[Override, ...],
    refuses: str,
) -> FleetView:
    known = status if isinstance(status, FleetStatus) else None
    applied = generation if isinstance(generation, Generation) else None
    current = known is not None and reconciler.alive and (applied is None or known.generation >= applied.number)
    return FleetView(
        name=name,
        generation=applied.number if applied else 0,
        digest=applied.digest if applied else "",
        applied_at=rfc3339(applied.at_ms) if applied else None,
        in_sync=known.in_sync if known and current else None,
        paused=pause.words if (pause := fleet_pause(overrides)) else "",
        overrides=tuple(OverrideView(kind=o.kind, scope=o.scope, reason=o.reason, by=o.by, at=o.at) for o in overrides),
        breaker=None if known is None or known.breaker is None else _breaker(known.breaker),
        rollout=None if known is None or known.rollout is None else _rollout(known.rollout),
        lost=None if known is None or known.redis.lost is None else _loss(known.redis.lost),
        eviction=f"{known.redis.eviction}; {known.redis.way_out}" if known is not None and known.redis.evicts else "",
        alone=known.redis.alone if known is not None else "",
        refuses=refuses,
        stale_after_s=applied.fleet.reconcile.stale_after_s if applied else STALE_AFTER_S,
        machines=desired,
        error=generation.message if isinstance(generation, EmpError) else "",
    )


def _breaker(found: BreakerStatus) -> BreakerView:
    return BreakerView(reason=found.reason, since=rfc3339(found.since_ms), trying=found.trial)


def _loss(found: Loss) -> RedisLossView:
    return RedisLossView(jobs=found.jobs, at=rfc3339(found.at_ms), reason=found.words, hint=found.hint)


def _rollout(found: RolloutStatus) -> RolloutView:
    return RolloutView(
        generation=found.generation,
        pending=found.pending,
        stalled=found.stalled,
        last_progress=rfc3339(found.since_progress_ms),
        done=found.done,
        total=found.done + found.pending,
        broken=found.broken,
        halted=found.halted,
    )


def _desired(generation: Generation) -> tuple[DesiredMachineView, ...]:
    return tuple(
        DesiredMachineView(
            id=MachineId(m.id),
            runtime=m.runtime,
            num_gpus=m.num_gpus,
            services=tuple(m.services),
            programs=tuple(p.name for p in m.programs),
            origin=m.origin,
        )
        for m in desired_machines(generation.fleet).values()
    )
