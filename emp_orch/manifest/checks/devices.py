"""`gpus` in emp.yaml beside the cards that this host has, as far as its driver tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from emp_orch.fleet.desired.slots_of_allotment import allotment_of
from emp_orch.fleet.model.fleet import Fleet, GpuKind, Machine, Service
from emp_orch.fleet.model.hosts import elsewhere
from emp_orch.host import gpus
from emp_orch.host.gpus import Broken, Look, NoDriver
from emp_orch.manifest.text.problems import Path, Report
from emp_orch.manifest.text.tree import Source

if TYPE_CHECKING:
    from emp_orch.manifest.build import Built

Looking = Callable[[], Look]


def check_here(built: Built, source: Source, report: Report, look: Looking = gpus.look_within) -> None:
    """Report ids of devices that this host does not have. Without a driver, or with cards in trouble, nobody knows."""
    asked = [(name, m) for name, m in built.entries.items() if m.gpus.ids and _is_here(built.fleet, m)]
    if not asked:
        return
    try:
        found = look()
    except (NoDriver, Broken):
        return
    for name, machine in asked if found.gpus and not found.error else ():
        base: Path = ("machines", name) if source.node(("machines", name, "gpus", "ids")) else ("defaults",)
        for index, device in enumerate(machine.gpus.ids):
            path = (*base, "gpus", "ids", index)
            if not _is_there(device, found) and report.sound(path):
                there = ", ".join(map(str, found.gpus))
                report.add(path, source.value_mark(path), "this host has no such GPU", f"it has {there}")


def _is_there(device: str, found: Look) -> bool:
    if device.startswith("MIG-"):
        return True  # parts of cards are not listed
    return any(device == str(gpu.index) or (device and gpu.uuid.startswith(device)) for gpu in found.gpus)


class Note(Struct, frozen=True, kw_only=True):
    origin: str
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: note: {self.text}"


def notes_here(fleet: Fleet, look: Looking = gpus.look_within) -> Iterator[Note]:
    """What a person may have meant otherwise, of the machines that this host runs. Asks the driver where it must."""
    here = [m for m in fleet.machines if m.num_gpus and _is_here(fleet, m)]
    wanting = [m for m in here if m.gpus.kind is GpuKind.NVIDIA or any(_is_real(s) for s in _services(fleet, m))]
    if not wanting:
        return
    shown = Look()
    trouble = ""
    try:
        shown = look()
        trouble = f"this host's GPUs: {shown.error}" if shown.error else ""
    except NoDriver:
        trouble = "no NVIDIA driver here"
    except Broken as e:
        trouble = f"the NVIDIA driver of this host does not work: {e}"
    for machine in wanting:
        if machine.gpus.kind is GpuKind.NVIDIA:
            texts = _of_devices(fleet, machine, shown, trouble)
        else:
            texts = _of_numbers(fleet, machine, len(shown.gpus))
        yield from (Note(origin=machine.origin, text=text) for text in texts)


def _of_devices(fleet: Fleet, machine: Machine, shown: Look, trouble: str) -> Iterator[str]:
    if trouble:
        yield f"{trouble}, and machine {machine.id} has gpus: nvidia"
    elif not machine.gpus.ids and allotment_of(fleet, machine) is None and len(shown.gpus) < machine.num_gpus:
        yield f"machine {machine.id} asks for {machine.num_gpus} GPUs, and this host has {len(shown.gpus)}"


def _of_numbers(fleet: Fleet, machine: Machine, cards: int) -> Iterator[str]:
    given = allotment_of(fleet, machine)
    if given is not None and len(given.slots) < machine.num_gpus:
        what = f"{given.said} allots {len(given.slots)} GPUs, so the other slots of machine {machine.id} see none"
        yield f"{what}; gpus: nvidia makes that an error"
    boxed = machine.traits.in_container
    if cards > 1 or (boxed and cards):
        here = f"this host has {cards} NVIDIA GPU{'' if cards == 1 else 's'}, and machine {machine.id} leaves out gpus"
        means = "its container sees none" if boxed else "its slots are only numbers, whatever cards there are"
        yield f"{here}: {means}; write gpus: nvidia, or name them: {{kind: nvidia, ids: [0, 1]}}"


def _is_here(fleet: Fleet, machine: Machine) -> bool:
    return not machine.traits.joins and not elsewhere(fleet, machine)


def _services(fleet: Fleet, machine: Machine) -> Iterator[Service]:
    return (s for name in machine.services if (s := fleet.services.get(name)) is not None)


def _is_real(service: Service) -> bool:
    """Whether it may want a GPU: a command of the user's, or ComfyUI unless it is told to use the processor."""
    if service.checkout is not None:
        return "--cpu" not in service.checkout.args
    return service.command is not None and "--cpu" not in service.command
