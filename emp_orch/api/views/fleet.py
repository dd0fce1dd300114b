"""What the API shows: frozen values, the shapes of `/api/monitor/state` and of `/openapi.json`.

Times are RFC 3339 UTC. Fields that change without meaning a change (ages, uptime) are named in `steady`.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from emp_orch.api.views.jobs import JobsView
from emp_orch.api.views.pool_points import PointView
from emp_orch.api.views.pools import MemberView, PoolView
from emp_orch.fleet.model.observed import ConnectorReport, GpuReport, ProgramReport

V = TypeVar("V", bound=Struct)


class MachineView(Struct, frozen=True, kw_only=True):
    """`status` is `offline` while `stale`: nobody has heard from it for the fleet's stale_after."""

    machine_id: str
    status: str
    reported_status: str
    stale: bool
    desired: bool
    boot_id: str
    generation: int
    config_hash: str
    num_gpus: int
    programs: dict[str, ProgramReport]
    gpus: tuple[GpuReport, ...]
    host: str
    agent_version: str
    package: str
    package_error: str
    health_port: int
    started_at: str
    last_seen: str
    age_s: float
    error: str
    workers: list[str]


class WorkerView(Struct, frozen=True, kw_only=True):
    """`capabilities.services` lists the services whose connectors loaded."""

    worker_id: str
    machine_id: str
    gpu: int
    status: str
    reported_status: str
    stale: bool
    capabilities: dict[str, Any]
    connector_statuses: dict[str, ConnectorReport]
    current_job_id: str | None
    package: str
    jobs_completed: int
    jobs_failed: int
    pid: int
    started_at: str
    last_seen: str
    age_s: float


class DriftView(Struct, frozen=True, kw_only=True):
    """One difference. `action` is what removes it; `held` says why that does not happen now, `hold` which policy;
    `failed` why the last attempt did not remove it."""

    key: str
    kind: str
    machine_id: str
    subject: str
    program: str | None
    desired: str
    observed: str
    cause: str
    origin: str
    since: str
    action: str
    held: str
    attempts: int
    last_attempt: str | None
    next_attempt: str | None
    hold: str | None = None
    failed: str = ""


class DesiredMachineView(Struct, frozen=True, kw_only=True):
    id: str
    runtime: str
    num_gpus: int
    services: tuple[str, ...]
    programs: tuple[str, ...]
    origin: str


class OverrideView(Struct, frozen=True, kw_only=True):
    """What somebody said beside emp.yaml. `kind`: pause, drain or scale; `scope`: fleet, MACHINE, MACHINE/PROGRAM or,
    of a scale, POOL, which is to have `size` members."""

    kind: str
    scope: str
    reason: str
    by: str
    at: str
    size: int | None = None


class BreakerView(Struct, frozen=True, kw_only=True):
    """emp acts no more by itself, since many machines failed together. `trying`: those that it tries meanwhile."""

    reason: str
    since: str
    trying: tuple[str, ...]


class RolloutView(Struct, frozen=True, kw_only=True):
    """A generation on its way: `done` of `total` machines that it changes are in order. `broken`: those that failed
    with it; `halted`: it is given to no further ones.
    """

    generation: int
    pending: int
    stalled: bool
    last_progress: str
    done: int = 0
    total: int = 0
    broken: tuple[str, ...] = ()
    halted: bool = False


class RedisLossView(Struct, frozen=True, kw_only=True):
    """Jobs that Redis lost, within a day."""

    jobs: int
    at: str
    reason: str
    hint: str


class FleetView(Struct, frozen=True, kw_only=True):
    """`generation` 0: nothing was applied. `in_sync` None: no reconciler has said. `eviction`: that Redis throws keys
    away, `alone`: that too few replicas follow it, `refuses`: why it takes no writes; with the way out.
    """

    name: str
    generation: int
    digest: str
    applied_at: str | None
    in_sync: bool | None
    paused: str
    stale_after_s: float
    machines: tuple[DesiredMachineView, ...]
    error: str = ""
    overrides: tuple[OverrideView, ...] = ()
    breaker: BreakerView | None = None
    rollout: RolloutView | None = None
    lost: RedisLossView | None = None
    eviction: str = ""
    alone: str = ""
    refuses: str = ""


class ReconcilerView(Struct, frozen=True, kw_only=True):
    """`alive` False: the last tick lies further back than a few intervals, or there was none."""

    alive: bool
    as_of: str | None
    age_s: float | None
    leader: str
    epoch: int
    error: str = ""


class ApiView(Struct, frozen=True, kw_only=True):
    version: str
    started_at: str
    uptime_s: float
    sse_clients: int
    ws_clients: int


class CountsView(Struct, frozen=True, kw_only=True):
    """Subjects by status; `total` beside it."""

    total: int
    by_status: dict[str, int]


class SystemStats(Struct, frozen=True, kw_only=True):
    machines: CountsView
    workers: CountsView
    drift: int
    malformed: int
    redis: dict[str, bool]
    reconciler: ReconcilerView
    api: ApiView


class State(Struct, frozen=True, kw_only=True):
    """Everything one look sees: `data` of `/api/monitor/state`. `members` are those of pools, machines too;
    `points` how each pool fared over the last day, in order of time.
    """

    machines: list[MachineView]
    workers: list[WorkerView]
    jobs: JobsView
    drift: list[DriftView]
    fleet: FleetView
    system_stats: SystemStats
    pools: list[PoolView] = []
    members: list[MemberView] = []
    points: list[PointView] = []


def steady(view: V) -> V:
    """`view` without what changes by itself: two that are equal then mean the same to who looks."""
    replace = msgspec.structs.replace
    match view:
        case MachineView() | WorkerView() if view.stale:
            return replace(view, age_s=0)
        case MachineView() | WorkerView():
            return replace(view, last_seen="", age_s=0)
        case SystemStats():
            return replace(
                view,
                reconciler=replace(view.reconciler, as_of=None, age_s=None),
                api=replace(view.api, uptime_s=0, sse_clients=0, ws_clients=0),
            )
        case _:
            return view
