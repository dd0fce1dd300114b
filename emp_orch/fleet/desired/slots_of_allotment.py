"""Which of the allotted GPUs a machine's slots are: into its programs' environments, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from emp_orch.fleet.model.allotment import CUDA, OBEYED, Allotment, read
from emp_orch.fleet.model.fleet import EnvValue, Fleet, GpuKind, Machine
from emp_orch.fleet.model.hosts import host_of

if TYPE_CHECKING:
    from emp_orch.fleet.desired.values import DesiredMachine


def allotment_of(fleet: Fleet, machine: Machine) -> Allotment | None:
    """What holds for `machine`, as far as it is known here: its own `env` says it, or else this host's allotment.

    A box that joined knows its own (machine/boot/box_gpus).
    """
    here = fleet.allotment
    if machine.traits.in_container:
        return here if here is not None and host_of(machine) in here.hosts else None
    own = read({name: value for name, value in machine.env.items() if name in OBEYED and isinstance(value, str)})
    return own or (here if machine.traits.shares_host else None)


def reserving(fleet: Fleet, machine: Machine) -> Machine:
    """`machine` with the allotted devices for its container, where its file names none."""
    given = allotment_of(fleet, machine)
    if not machine.traits.in_container or machine.gpus.kind is GpuKind.NONE or machine.gpus.ids:
        return machine
    if given is None or len(given.ids) < machine.num_gpus:
        return machine
    return structs.replace(machine, gpus=structs.replace(machine.gpus, ids=given.ids[: machine.num_gpus]))


def give(machine: DesiredMachine, given: Allotment, env: Mapping[str, EnvValue]) -> DesiredMachine:
    """`machine` with `given` in the environments of its programs; its own `env` is what they all get.

    A program whose CUDA_VISIBLE_DEVICES is not its slot's number keeps it: emp.yaml names a device.
    """

    def of(own: Mapping[str, EnvValue], slot: int | None) -> dict[str, EnvValue]:
        if slot is None:
            return {**given.whole, **own}
        if own.get(CUDA) != str(slot):
            return dict(own)
        device = given.of_slot(slot)
        ours = {n: v for n, v in device.items() if n == CUDA or own.get(n) == env.get(n)}
        return {**own, **ours}

    return structs.replace(machine, programs=tuple(structs.replace(p, env=of(p.env, p.slot)) for p in machine.programs))


def lacking(fleet: Fleet, machine: Machine) -> str:
    """Why the allotted GPUs are not enough for `machine`; empty when they are, or nobody allotted any."""
    given = allotment_of(fleet, machine)
    if given is None or machine.gpus.kind is GpuKind.NONE:
        return ""
    if machine.gpus.ids:
        others = [i for i in machine.gpus.ids if _is_another(i, given)]
        return f"gpus.ids of machine {machine.id} names {', '.join(others)}, not in {given.said}" if others else ""
    return too_few(machine.id, machine.num_gpus, given)


def too_few(machine_id: str, wanted: int, given: Allotment) -> str:
    """What is wrong where `wanted` slots are more than `given`; else empty."""
    if wanted <= len(given.slots):
        return ""
    held = f"{len(given.slots)} GPU{'' if len(given.slots) == 1 else 's'}" if given.slots else "no GPU"
    return f"machine {machine_id} asks for {wanted} GPUs, and {given.said} allots {held}"


def _is_another(device: str, given: Allotment) -> bool:
    """Whether `device` is surely none of those given; an index cannot be compared with a UUID."""
    known = {*given.names, *given.ids}
    alike = [k for k in known if k.isdecimal() == device.isdecimal()]
    return bool(alike or not known) and not any(
        k.startswith(device) if not device.isdecimal() else k == device for k in alike
    )
