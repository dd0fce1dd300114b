"""Fleet → what each machine should run, program by program.

Nothing here knows where a machine keeps its files: text rendered from a DesiredMachine is the same wherever the
machine runs, so its hash says only what is wanted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial

import msgspec
from msgspec import structs

from emp_orch.environments import of_store
from emp_orch.fleet.desired.addresses import program_port
from emp_orch.fleet.desired.containers import desired_container, device_in_container, device_of, unpinned
from emp_orch.fleet.desired.slots_of_allotment import allotment_of, give, reserving
from emp_orch.fleet.desired.values import DesiredContainer, DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.desired.worker_command import WORKER_STOP_MARGIN_S, warmup_file, worker_argv
from emp_orch.fleet.model.allotment import CUDA, SLOT
from emp_orch.fleet.model.builtins import EMP, preparing, serving
from emp_orch.fleet.model.fleet import (
    EnvValue,
    Fleet,
    GpuKind,
    Health,
    Machine,
    MachineId,
    ProgramName,
    Scale,
    SecretRef,
    Service,
    Stop,
)
from emp_orch.fleet.model.ids import worker_program

SHARED_SETUP = ProgramName("shared-setup")


def secrets_of(machine: DesiredMachine) -> frozenset[str]:
    """The keys of the secrets that this machine's programs name."""
    return frozenset(v.key for p in machine.programs for v in p.env.values() if isinstance(v, SecretRef))


def needed_secrets(machine: DesiredMachine, values: Mapping[str, str]) -> dict[str, str]:
    """Of `values`, by key, those that this machine's programs name, and no other."""
    keys = secrets_of(machine)
    return {key: value for key, value in values.items() if key in keys}


def config_hash(machine: DesiredMachine) -> str:
    """A digest of all that a machine is configured by; where it stands in emp.yaml is left out, and which
    image a name means: what runs in it need not know.
    """
    bare = msgspec.structs.replace(
        machine,
        origin="",
        programs=tuple(msgspec.structs.replace(p, origin="") for p in machine.programs),
        container=None if machine.container is None else unpinned(machine.container),
    )
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:16]


def desired_machines(fleet: Fleet) -> dict[MachineId, DesiredMachine]:
    """Every machine of the fleet, by id, in the order of emp.yaml."""
    return {m.id: desired_machine(fleet, m) for m in fleet.machines}


def desired_machine(fleet: Fleet, machine: Machine) -> DesiredMachine:
    """The programs of one machine: set-up, installers, services in dependency order, one worker a GPU slot."""
    machine = reserving(fleet, machine)
    services = _in_dependency_order([fleet.services[name] for name in machine.services])
    programs: list[DesiredProgram] = [_shared_setup(machine)]
    programs += [_installer(machine, s) for s in services if _has_installer(s)]
    for service in services:
        programs += _service_programs(machine, service, fleet)
    programs += [_worker(fleet, machine, slot) for slot in range(machine.num_gpus)]
    made = DesiredMachine(
        id=machine.id,
        runtime=machine.runtime,
        num_gpus=machine.num_gpus,
        services=machine.services,
        programs=tuple(programs),
        health_port=machine.health_port,
        labels=machine.labels,
        drain_timeout_s=machine.worker.drain_timeout_s,
        capabilities=machine.worker.capabilities,
        needs_gpus=machine.gpus.kind is GpuKind.NVIDIA,
        origin=machine.origin,
        container=_container(fleet, machine),
        job_timeout_s=machine.worker.job_timeout_s,
        warmups={warmup_file(s): s.warmup for s in services if s.warmup},
    )
    given = allotment_of(fleet, machine)
    if given is None or machine.gpus.ids or machine.traits.in_container:
        return made
    return give(made, given, machine.env)


def _container(fleet: Fleet, machine: Machine) -> DesiredContainer | None:
    if not machine.traits.in_container:
        return None
    services = [fleet.services[name] for name in machine.publish if name in machine.services]
    ports = {program_port(machine, s, slot) for s in services for slot in _slots(machine, s)}
    return desired_container(machine, tuple(sorted(p for p in ports if p is not None)), fleet.images)


def _in_dependency_order(services: list[Service]) -> list[Service]:
    """Each service after those it depends on, else in the order given. manifest/ has refused cycles."""
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


def _has_installer(service: Service) -> bool:
    return service.install is not None or service.builtin is not None


def _installer_name(service: Service) -> ProgramName:
    return ProgramName(f"{service.name}-installer")


def _once(
    name: ProgramName,
    argv: tuple[str, ...],
    machine: Machine,
    *,
    service: Service | None,
    creates: str | None = None,
    after: tuple[ProgramName, ...] = (SHARED_SETUP,),
) -> DesiredProgram:
    """A set-up step: the machine's own when `service` is None, else the service's."""
    own = service is None
    return DesiredProgram(
        name=name,
        kind=ProgramKind.SETUP if own else ProgramKind.INSTALLER,
        service=None if service is None else service.name,
        slot=None,
        port=None,
        argv=argv,
        env=_env(machine, service, None),
        cwd=None if service is None or service.cwd is None else _fill(service.cwd, service, machine, None),
        creates=creates,
        health=None,
        stop=_ONCE_STOP,
        start_s=0.0,
        after=() if own else after,
        origin=machine.origin if service is None else service.origin,
    )


def _shared_setup(machine: Machine) -> DesiredProgram:
    return _once(SHARED_SETUP, (EMP, "machine-setup"), machine, service=None)


def _installer(machine: Machine, service: Service) -> DesiredProgram:
    name = _installer_name(service)
    if service.install is None:
        return _once(name, preparing(service), machine, service=service)
    argv = tuple(_fill(word, service, machine, None) for word in service.install.command)
    creates = service.install.creates
    filled = None if creates is None else _fill(creates, service, machine, None)
    return _once(name, argv, machine, service=service, creates=filled)


def _slots(machine: Machine, service: Service) -> list[int | None]:
    return list(range(machine.num_gpus)) if service.scale is Scale.PER_GPU else [None]


def _program_name(service: Service, slot: int | None) -> ProgramName:
    return ProgramName(service.name if slot is None else f"{service.name}-gpu{slot}")


def _program_names(machine: Machine, service: Service) -> list[ProgramName]:
    return [_program_name(service, slot) for slot in _slots(machine, service)]


def _service_programs(machine: Machine, service: Service, fleet: Fleet) -> list[DesiredProgram]:
    after = [_installer_name(service)] if _has_installer(service) else [SHARED_SETUP]
    for name in service.depends_on:
        if name in machine.services:
            after += _program_names(machine, fleet.services[name])
    if service.scale is Scale.ONCE:
        argv = tuple(_fill(word, service, machine, None) for word in service.command or ())
        return [_once(ProgramName(service.name), argv, machine, service=service, after=tuple(after))]
    return [_service_program(fleet, machine, service, slot, tuple(after)) for slot in _slots(machine, service)]


def _service_program(
    fleet: Fleet, machine: Machine, service: Service, slot: int | None, after: tuple[ProgramName, ...]
) -> DesiredProgram:
    port = program_port(machine, service, slot)
    if service.builtin is not None:
        fill = partial(_fill, service=service, machine=machine, slot=slot)
        published, inputs = _published(machine, service), fleet.jobs.inputs
        most = None if inputs is None else inputs.max_bytes
        argv = serving(service, slot, port, published=published, fill=fill, max_input_bytes=most)
    else:
        argv = tuple(_fill(word, service, machine, slot) for word in service.command or ())
    return DesiredProgram(
        name=_program_name(service, slot),
        kind=ProgramKind.SERVICE,
        service=service.name,
        slot=slot,
        port=port,
        argv=argv,
        env=_env(machine, service, slot),
        # A checkout is started from the machine's folder, and goes to its working directory itself.
        cwd=None if service.cwd is None or service.checkout else _fill(service.cwd, service, machine, slot),
        creates=None,
        health=_filled_health(machine, service, slot),
        stop=service.stop,
        start_s=service.start_s,
        after=after,
        origin=service.origin,
    )


def _published(machine: Machine, service: Service) -> bool:
    return machine.traits.in_container and service.name in machine.publish


def _env(machine: Machine, service: Service | None, slot: int | None) -> dict[str, EnvValue]:
    """What emp.yaml gives a program: `inherit`, the machine's `env`, its slot's device, the service's `env`."""
    names = machine.inherit if service is None else (*machine.inherit, *service.inherit)
    own = {} if service is None else _filled_env(machine, service, slot)
    return {**inherited(names), **machine.env, **_gpu_env(machine, slot), **own}


def inherited(names: Iterable[str]) -> dict[str, EnvValue]:
    """Variables of the shell of the apply, which need not be set there."""
    return {name: SecretRef(source="env", name=name, optional=True) for name in names}


def _of_store(fleet: Fleet, machine: Machine) -> dict[str, EnvValue]:
    """What a worker opens the artifact store with. A container, and a box, get only what stands in their `env`."""
    return inherited(of_store(fleet.jobs.artifacts)) if machine.traits.shares_host else {}


def _filled_env(machine: Machine, service: Service, slot: int | None) -> dict[str, EnvValue]:
    return {k: _fill(v, service, machine, slot) if isinstance(v, str) else v for k, v in service.env.items()}


def _filled_health(machine: Machine, service: Service, slot: int | None) -> Health | None:
    if service.health is None:
        return None
    fill = partial(_fill, service=service, machine=machine, slot=slot)
    asked = service.health
    return structs.replace(
        asked, http=fill(asked.http), tcp=fill(asked.tcp), command=tuple(fill(word) for word in asked.command)
    )


def _gpu_env(machine: Machine, slot: int | None) -> dict[str, EnvValue]:
    """CUDA_VISIBLE_DEVICES of a per-GPU program: the slot's device, whether or not a GPU is there."""
    if slot is None:
        return {}
    device = device_in_container(machine, slot) if machine.traits.in_container else device_of(machine, slot)
    return {CUDA: device, SLOT: str(slot)}


def _fill(text: str, service: Service, machine: Machine, slot: int | None) -> str:
    """`text` with `${port} ${gpu} ${machine_id}` replaced."""
    port = program_port(machine, service, slot)
    values = {"port": "" if port is None else str(port), "gpu": str(slot or 0), "machine_id": machine.id}
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    return text


def _worker(fleet: Fleet, machine: Machine, slot: int) -> DesiredProgram:
    return DesiredProgram(
        name=worker_program(slot),
        kind=ProgramKind.WORKER,
        service=None,
        slot=slot,
        port=None,
        argv=worker_argv(fleet, machine, slot),
        env={**_of_store(fleet, machine), **_env(machine, None, slot)},
        cwd=None,
        creates=None,
        health=None,
        stop=Stop(signal="TERM", timeout_s=machine.worker.drain_timeout_s + WORKER_STOP_MARGIN_S),
        start_s=1.0,
        after=(SHARED_SETUP,),
        origin=machine.origin,
    )
