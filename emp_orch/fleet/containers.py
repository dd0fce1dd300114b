"""What a machine's container is: all that can only change with a new container."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from emp_orch.fleet.hosts import host_of
from emp_orch.fleet.model import GpuKind, Limits, Machine, Volume
from emp_orch.images import MACHINE_IMAGE

if TYPE_CHECKING:
    from emp_orch.fleet.desired import DesiredMachine


class DesiredContainer(Struct, frozen=True, kw_only=True):
    """`publish` are ports published on the loopback address of `host`, under their own numbers.

    `gpus` are the ids of the devices reserved for it; empty with gpus none.
    """

    host: str
    image: str
    publish: tuple[int, ...]
    gpus: tuple[str, ...]
    volumes: tuple[Volume, ...]
    limits: Limits


def desired_container(machine: Machine, publish: tuple[int, ...]) -> DesiredContainer:
    """The container of a compose machine; `publish` are the ports of the services that it publishes."""
    return DesiredContainer(
        host=host_of(machine),
        image=machine.image or MACHINE_IMAGE,
        publish=publish,
        gpus=reserved(machine),
        volumes=machine.volumes,
        limits=machine.limits,
    )


def reserved(machine: Machine) -> tuple[str, ...]:
    """The devices of slots 0, 1, …, as Docker takes them."""
    if machine.gpus.kind is GpuKind.NONE:
        return ()
    return machine.gpus.ids or tuple(map(str, range(machine.num_gpus)))


def device_of(machine: Machine, slot: int) -> str:
    """What CUDA calls the device of `slot` on a host that shows them all."""
    devices = reserved(machine)
    return devices[slot] if devices else str(slot)


def device_inside(machine: Machine, slot: int) -> str:
    """What CUDA calls the device of `slot` inside the machine's container.

    NVIDIA's runtime shows a container only what it reserved, numbered anew in the order of the host's indices; a UUID
    stays the same.
    """
    devices = reserved(machine)
    if not devices or not all(d.isdecimal() for d in devices):
        return device_of(machine, slot)
    return str(sorted(devices, key=int).index(devices[slot]))


def container_hash(machine: DesiredMachine) -> str:
    """A digest of what only a new container can change; empty for a machine that is none.

    num_gpus without GPU reservations, services, commands and workers take no part: they change in place.
    """
    if machine.container is None:
        return ""
    return hashlib.sha256(msgspec.json.encode(machine.container, order="sorted")).hexdigest()[:16]
