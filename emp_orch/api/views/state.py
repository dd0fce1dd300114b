"""What is shown of what was read: of machines, workers, drift, the fleet. Pure."""

from __future__ import annotations

from collections import Counter

from msgspec import structs

from emp_orch.api.views.fleet import (
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
    WorkerView,
)
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.model.defaults import STALE_AFTER_S
from emp_orch.fleet.model.fleet import Fleet, MachineId, PoolName
from emp_orch.fleet.model.observed import SeenMachine, SeenWorker
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.leader_silence import is_silent
from emp_orch.fleet.policy.pauses import fleet_pause
from emp_orch.jobs.outcome.losses import Loss
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.status import BreakerStatus, FleetStatus, RolloutStatus
from emp_orch.store.reports.reports import Reports
from emp_orch.web.times import rfc3339

OFFLINE = "offline"


def counts_view(counted: Counter[str]) -> CountsView:
    return CountsView(total=counted.total(), by_status={s: n for s, n in sorted(counted.items()) if n})


def report_views(reports: Reports, fleet: FleetView) -> tuple[list[MachineView], list[WorkerView]]:
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
        overrides=tuple(_override(o) for o in overrides),
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


def _override(o: Override) -> OverrideView:
    size = o.size if o.kind is OverrideKind.SCALE else None
    return OverrideView(kind=o.kind, scope=o.scope, reason=o.reason, by=o.by, at=o.at, size=size)


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


def desired_views(fleet: Fleet) -> tuple[DesiredMachineView, ...]:
    """Of a pool's members, which are alike, one is worked out."""
    found: list[DesiredMachineView] = []
    alike: dict[PoolName, DesiredMachineView] = {}
    for machine in fleet.machines:
        view = alike.get(machine.pool) if machine.pool else None
        if view is None:
            view = _desired_view(desired_machine(fleet, machine))
            if machine.pool:
                alike[machine.pool] = view
        found.append(structs.replace(view, id=machine.id))
    return tuple(found)


def _desired_view(machine: DesiredMachine) -> DesiredMachineView:
    return DesiredMachineView(
        id=MachineId(machine.id),
        runtime=machine.runtime,
        num_gpus=machine.num_gpus,
        services=tuple(machine.services),
        programs=tuple(p.name for p in machine.programs),
        origin=machine.origin,
    )
