"""Fleet → what each machine should run, program by program.

Nothing here knows where a machine keeps its files: text rendered from a DesiredMachine is the same wherever the
machine runs, so its hash says only what is wanted.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

import msgspec
from msgspec import Struct

from emp_orch.fleet.model import (
    EnvValue,
    Fleet,
    GpuKind,
    Health,
    Machine,
    MachineId,
    Origin,
    ProgramName,
    RuntimeKind,
    Scale,
    Service,
    ServiceName,
    Stop,
    WorkerId,
)

# First word of a command that is emp itself; the launcher puts this host's interpreter in its place.
EMP = "@emp"
SHARED_SETUP = ProgramName("shared-setup")
# A worker's stop must outlast its drain, so that the result of the last job is still written.
WORKER_STOP_MARGIN_S = 5.0


class ProgramKind(StrEnum):
    SETUP = "setup"
    INSTALLER = "installer"
    SERVICE = "service"
    WORKER = "worker"

    @property
    def once(self) -> bool:
        """Whether the program runs to its end (exit 0) instead of staying up."""
        return self in (ProgramKind.SETUP, ProgramKind.INSTALLER)


class DesiredProgram(Struct, frozen=True, kw_only=True):
    """One supervisord process. `argv[0]` may be EMP. `port` is the one it listens on, slot included."""

    name: ProgramName
    kind: ProgramKind
    service: ServiceName | None
    slot: int | None
    port: int | None
    argv: tuple[str, ...]
    env: dict[str, EnvValue]
    cwd: str | None
    creates: str | None
    health: Health | None
    stop: Stop
    start_s: float
    after: tuple[ProgramName, ...]
    origin: Origin


class DesiredMachine(Struct, frozen=True, kw_only=True):
    """What one machine should run. `programs` are in start-up order."""

    id: MachineId
    runtime: RuntimeKind
    num_gpus: int
    services: tuple[ServiceName, ...]
    programs: tuple[DesiredProgram, ...]
    env: dict[str, EnvValue]
    health_port: int
    labels: dict[str, str]
    drain_timeout_s: float
    origin: Origin

    def program(self, name: ProgramName) -> DesiredProgram | None:
        return next((p for p in self.programs if p.name == name), None)

    @property
    def workers(self) -> dict[WorkerId, ProgramName]:
        """The workers this machine should have, and the program of each."""
        return {worker_id(self.id, slot): worker_program(slot) for slot in range(self.num_gpus)}


def worker_id(machine_id: MachineId, slot: int) -> WorkerId:
    return WorkerId(f"{machine_id}-worker-{slot}")


def worker_program(slot: int) -> ProgramName:
    return ProgramName(f"redis-worker-gpu{slot}")


def config_hash(machine: DesiredMachine) -> str:
    """A digest of all that a machine is configured by; where it stands in emp.yaml is left out."""
    bare = msgspec.structs.replace(
        machine,
        origin="",
        programs=tuple(msgspec.structs.replace(p, origin="") for p in machine.programs),
    )
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:16]


def desired_machines(fleet: Fleet) -> dict[MachineId, DesiredMachine]:
    """Every machine of the fleet, by id, in the order of emp.yaml."""
    return {m.id: desired_machine(fleet, m) for m in fleet.machines}


def desired_machine(fleet: Fleet, machine: Machine) -> DesiredMachine:
    """The programs of one machine: set-up, installers, services in dependency order, one worker a GPU slot."""
    services = _in_dependency_order([fleet.services[name] for name in machine.services])
    programs: list[DesiredProgram] = [_shared_setup(machine)]
    programs += [_installer(machine, s) for s in services if s.install is not None or s.builtin is not None]
    for service in services:
        programs += _service_programs(machine, service)
    programs += [_worker(fleet, machine, slot) for slot in range(machine.num_gpus)]
    return DesiredMachine(
        id=machine.id,
        runtime=machine.runtime,
        num_gpus=machine.num_gpus,
        services=machine.services,
        programs=tuple(programs),
        env=machine.env,
        health_port=machine.health_port,
        labels=machine.labels,
        drain_timeout_s=machine.worker.drain_timeout_s,
        origin=machine.origin,
    )


def _in_dependency_order(services: list[Service]) -> list[Service]:
    """Each service after those it depends on, else in the order given. spec/ has refused cycles."""
    ordered: list[Service] = []
    names = {s.name: s for s in services}

    def visit(service: Service) -> None:
        if service in ordered:
            return
        for name in service.depends_on:
            if name in names:
                visit(names[name])
        ordered.append(service)

    for service in services:
        visit(service)
    return ordered


_ONCE_STOP = Stop(signal="TERM", timeout_s=10.0)


def _once(
    name: ProgramName, kind: ProgramKind, argv: tuple[str, ...], origin: Origin, *, service: Service | None = None
) -> DesiredProgram:
    return DesiredProgram(
        name=name,
        kind=kind,
        service=service.name if service else None,
        slot=None,
        port=None,
        argv=argv,
        env=service.env if service else {},
        cwd=service.cwd if service else None,
        creates=service.install.creates if service and service.install else None,
        health=None,
        stop=_ONCE_STOP,
        start_s=0.0,
        after=(),
        origin=origin,
    )


def _shared_setup(machine: Machine) -> DesiredProgram:
    return _once(SHARED_SETUP, ProgramKind.SETUP, (EMP, "machine-setup"), machine.origin)


def _installer(machine: Machine, service: Service) -> DesiredProgram:
    if service.install is not None:
        argv = tuple(_fill(word, service, machine, None) for word in service.install.command)
    else:
        argv = (EMP, "simulate", "--prepare", "--dir", _data_dir(service, None))
    name = ProgramName(f"{service.name}-installer")
    return _once(name, ProgramKind.INSTALLER, argv, service.origin, service=service)


def _service_programs(machine: Machine, service: Service) -> list[DesiredProgram]:
    match service.scale:
        case Scale.PER_GPU:
            slots: list[int | None] = list(range(machine.num_gpus))
        case Scale.PER_MACHINE:
            slots = [None]
        case Scale.ONCE:
            argv = tuple(_fill(word, service, machine, None) for word in service.command or ())
            return [_once(ProgramName(service.name), ProgramKind.INSTALLER, argv, service.origin, service=service)]
    return [_service_program(machine, service, slot) for slot in slots]


def program_port(machine: Machine, service: Service, slot: int | None) -> int | None:
    """Where slot `slot` of `service` listens on `machine`; None when the service has no port."""
    base = machine.ports.get(service.name, service.port)
    return None if base is None else base + machine.port_offset + (slot or 0)


def _service_program(machine: Machine, service: Service, slot: int | None) -> DesiredProgram:
    port = program_port(machine, service, slot)
    if service.builtin is not None:
        gpu = () if slot is None else ("--gpu", str(slot))
        argv: tuple[str, ...] = (EMP, "simulate", "--port", str(port), "--dir", _data_dir(service, slot), *gpu)
    else:
        argv = tuple(_fill(word, service, machine, slot) for word in service.command or ())
    env: dict[str, EnvValue] = {
        k: _fill(v, service, machine, slot) if isinstance(v, str) else v for k, v in service.env.items()
    }
    return DesiredProgram(
        name=ProgramName(service.name if slot is None else f"{service.name}-gpu{slot}"),
        kind=ProgramKind.SERVICE,
        service=service.name,
        slot=slot,
        port=port,
        argv=argv,
        env={**_gpu_env(machine, slot), **env},
        cwd=None if service.cwd is None else _fill(service.cwd, service, machine, slot),
        creates=None,
        health=service.health,
        stop=service.stop,
        start_s=service.start_s,
        after=tuple(ProgramName(d) for d in service.depends_on),
        origin=service.origin,
    )


def _gpu_env(machine: Machine, slot: int | None) -> dict[str, EnvValue]:
    """CUDA_VISIBLE_DEVICES of a per-GPU program: the slot's device, whether or not a GPU is there."""
    if slot is None:
        return {}
    device = machine.gpus.ids[slot] if machine.gpus.kind is GpuKind.NVIDIA and machine.gpus.ids else str(slot)
    return {"CUDA_VISIBLE_DEVICES": device, "EMP_GPU_SLOT": str(slot)}


def _data_dir(service: Service, slot: int | None) -> str:
    """Relative to the machine's folder, which is every program's working directory unless `cwd` says else."""
    return f"data/{service.name}" if slot is None else f"data/{service.name}-gpu{slot}"


def _fill(text: str, service: Service, machine: Machine, slot: int | None) -> str:
    """`text` with `${port} ${gpu} ${machine_id}` replaced."""
    port = program_port(machine, service, slot)
    values = {"port": "" if port is None else str(port), "gpu": str(slot or 0), "machine_id": machine.id}
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text


def _worker(fleet: Fleet, machine: Machine, slot: int) -> DesiredProgram:
    services = [fleet.services[name] for name in machine.services]
    words: list[str] = []
    for service in services:
        port = program_port(machine, service, slot if service.scale is Scale.PER_GPU else None)
        if service.connector is not None and port is not None:
            words += ["--service", f"{service.name}={service.connector}@http://127.0.0.1:{port}"]
    capabilities = msgspec.json.encode(machine.worker.capabilities, order="sorted").decode()
    return DesiredProgram(
        name=worker_program(slot),
        kind=ProgramKind.WORKER,
        service=None,
        slot=slot,
        port=None,
        argv=(
            EMP,
            *("worker", "--machine", machine.id, "--gpu", str(slot)),
            *words,
            *("--capabilities", capabilities),
            *("--drain-timeout", str(machine.worker.drain_timeout_s)),
            *("--job-timeout", str(machine.worker.job_timeout_s)),
        ),
        env=_gpu_env(machine, slot),
        cwd=None,
        creates=None,
        health=None,
        stop=Stop(signal="TERM", timeout_s=machine.worker.drain_timeout_s + WORKER_STOP_MARGIN_S),
        start_s=1.0,
        after=(),
        origin=machine.origin,
    )
