"""Fleets and observations for tests of the pure rooms, built from a few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import (
    BreakerSpec,
    BudgetSpec,
    Endpoint,
    EnvValue,
    Fleet,
    GpuKind,
    Gpus,
    Health,
    Install,
    JobsSpec,
    Machine,
    MachineId,
    ProgramName,
    ReconcileSpec,
    RedisSpec,
    RolloutSpec,
    Scale,
    Service,
    ServiceName,
    Stop,
    WorkerId,
    WorkerSpec,
)
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.limits import limits_of
from emp_orch.fleet.model.observed import (
    Instance,
    InstanceState,
    MachineReport,
    MachineStatus,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    SeenWorker,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.fleet.model.runtimes import RuntimeKind

# A moment long after every start in these tests.
NOW_MS = 1_000_000_000
OLD_MS = NOW_MS - 3_600_000

HEALTH = Health(http="/system_stats", interval_s=2.0, timeout_s=1.0, failures=3, startup_s=60.0)


def service(name: str, **changes: Any) -> Service:
    """A per-machine service with a command; `changes` are fields of Service."""
    fields: dict[str, Any] = {
        "name": ServiceName(name),
        "scale": Scale.PER_MACHINE,
        "command": ("serve", name) if changes.get("builtin") is None else None,
        "builtin": None,
        "connector": None,
        "port": None,
        "health": None,
        "install": None,
        "env": {},
        "cwd": None,
        "stop": Stop(signal="TERM", timeout_s=10.0),
        "start_s": 1.0,
        "depends_on": (),
        "origin": f"emp.yaml:{name}",
    }
    return Service(**{**fields, **changes})


SIMULATION = service("simulation", builtin="simulation", port=8299, connector="simulation")
COMFYUI = service("comfyui", scale=Scale.PER_GPU, builtin="simulation", port=8188, health=HEALTH, connector="comfyui")
SETUP = service("prepare", scale=Scale.ONCE, command=("prepare", "${machine_id}"))


def machine(machine_id: str = "m", *, services: Iterable[str] = (), num_gpus: int = 1, **changes: Any) -> Machine:
    fields: dict[str, Any] = {
        "id": MachineId(machine_id),
        "runtime": RuntimeKind.PROCESS,
        "num_gpus": num_gpus,
        "services": tuple(ServiceName(s) for s in services),
        "env": {},
        "gpus": Gpus(kind=GpuKind.NONE, ids=()),
        "host": None,
        "image": None,
        "ports": {},
        "port_offset": 0,
        "health_port": 0,
        "labels": {},
        "worker": WorkerSpec(capabilities={}, drain_timeout_s=30.0, job_timeout_s=600.0),
        "origin": f"emp.yaml:{machine_id}",
    }
    return Machine(**{**fields, **changes})


def fleet(services: Iterable[Service], *machines: Machine) -> Fleet:
    return Fleet(
        name="f",
        redis=RedisSpec(url="embedded", port=6380, machine_url="", prefix=""),
        api=Endpoint(host="127.0.0.1", port=3331, token=None),
        monitor=Endpoint(host="127.0.0.1", port=3333, token=None),
        services={s.name: s for s in services},
        machines=machines,
        jobs=JobsSpec(artifacts="", keep_count=10_000, keep_age_s=604_800.0, lease_s=30.0),
        reconcile=ReconcileSpec(
            interval_s=2.0,
            stale_after_s=10.0,
            max_unavailable=1,
            prune=False,
            budget=BudgetSpec(program=5, machine=3, window_s=1800.0),
            breaker=BreakerSpec(share=0.5, window_s=120.0, probe_s=60.0),
            rollout=RolloutSpec(min_healthy_s=0.0, progress_deadline_s=600.0, rollback=False),
        ),
    )


def one(services: Iterable[Service], **changes: Any) -> DesiredMachine:
    """The desired machine `m` that runs all `services`; `changes` are fields of Machine."""
    services = list(services)
    m = machine(services=[s.name for s in services], **changes)
    return desired_machine(fleet(services, m), m)


def wish(*machines: DesiredMachine, generation: int = 1, max_unavailable: int = 1, prune: bool = False) -> Desired:
    return Desired(
        generation=generation,
        machines={m.id: m for m in machines},
        digests={m.id: config_hash(m) for m in machines},
        limits=limits_of(fleet(()).reconcile),
        stale_after_ms=10_000,
        max_unavailable=max_unavailable,
        prune=prune,
    )


def up(m: DesiredMachine) -> dict[ProgramName, ProgramReport]:
    """Every program of `m` as it should be, for an hour."""
    return {
        p.name: ProgramReport(state=ProgramState.EXITED, since_ms=OLD_MS, exit_status=0)
        if p.kind.once
        else ProgramReport(
            state=ProgramState.RUNNING, pid=7, since_ms=OLD_MS, healthy=True if p.health is not None else None
        )
        for p in m.programs
    }


def report(m: DesiredMachine, *, seen_ms: int = NOW_MS, **changes: Any) -> SeenMachine:
    """What the agent of `m` says when all is well."""
    fields: dict[str, Any] = {
        "machine_id": m.id,
        "status": MachineStatus.READY,
        "boot_id": "1-1",
        "generation": 1,
        "config_hash": config_hash(m),
        "num_gpus": m.num_gpus,
        "programs": up(m),
        "host": "here",
        "agent_version": "0",
        "started_ms": OLD_MS + 1_000,
    }
    return SeenMachine(report=MachineReport(**{**fields, **changes}), seen_ms=seen_ms)


def worker(m: DesiredMachine, slot: int, *, seen_ms: int = NOW_MS, **changes: Any) -> SeenWorker:
    fields: dict[str, Any] = {
        "worker_id": worker_id(m.id, slot),
        "machine_id": m.id,
        "gpu": slot,
        "status": WorkerStatus.IDLE,
        "capabilities": {"services": []},
        "connector_statuses": {},
        "started_ms": OLD_MS,
    }
    return SeenWorker(report=WorkerReport(**{**fields, **changes}), seen_ms=seen_ms)


def running(m: DesiredMachine, started_ms: int = OLD_MS, boot_id: str = "1-1") -> Instance:
    return Instance(machine_id=m.id, state=InstanceState.RUNNING, started_ms=started_ms, boot_id=boot_id, pid=1)


def look(*machines: DesiredMachine, **changes: Any) -> Observed:
    """What one sees when all `machines` are as they should be; `changes` are fields of Observed."""
    workers: dict[WorkerId, SeenWorker] = {}
    for m in machines:
        workers |= {worker_id(m.id, slot): worker(m, slot) for slot in range(m.num_gpus)}
    fields: dict[str, Any] = {
        "now_ms": NOW_MS,
        "observing_since_ms": OLD_MS,
        "machines": {m.id: report(m) for m in machines},
        "workers": workers,
        "instances": {m.id: running(m) for m in machines},
        "answered": (RuntimeKind.PROCESS,),
    }
    return Observed(**{**fields, **changes})


def env(**values: EnvValue) -> dict[str, EnvValue]:
    return values


def install(*command: str, creates: str | None = None) -> Install:
    return Install(command=command, creates=creates)
