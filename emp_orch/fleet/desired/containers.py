"""What a machine's container is: all that can only change with a new container."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec
from msgspec import structs

from emp_orch.fleet.desired.values import DesiredContainer, DesiredMachine
from emp_orch.fleet.model.fleet import GpuKind, ImageThere, Machine
from emp_orch.fleet.model.hosts import host_of
from emp_orch.images import MACHINE_IMAGE

# The machine's own volume, in its container.
HOME = "/var/lib/emp"
# The volume beside it, with what is emp's own: its services do not reach into that.
OWN = "/var/lib/emp-own"


def desired_container(
    machine: Machine, publish: tuple[int, ...], images: tuple[ImageThere, ...] = ()
) -> DesiredContainer:
    """The container of a compose machine; `publish` are the ports of the services that it publishes."""
    host, image = host_of(machine), machine.image or MACHINE_IMAGE
    there = next((i for i in images if (i.host, i.image) == (host, image)), None)
    return DesiredContainer(
        host=host,
        image=image,
        publish=publish,
        gpus=reserved(machine),
        volumes=machine.volumes,
        limits=machine.limits,
        image_id=there.id if there is not None else "",
        image_digest=there.digest if there is not None else "",
    )


def unpinned(container: DesiredContainer) -> DesiredContainer:
    """`container` without which image its name means."""
    return structs.replace(container, image_id="", image_digest="")


def image_moved(one: DesiredContainer | None, other: DesiredContainer | None) -> bool:
    """Whether both are known to be made from different images, by whatever name."""
    ids = (one.image_id if one else "", other.image_id if other else "")
    return all(ids) and ids[0] != ids[1]


def images_moved(before: Iterable[ImageThere], after: Iterable[ImageThere]) -> bool:
    """Whether a name means another image on one of its hosts than before."""
    was = {(i.host, i.image): i.id for i in before}
    return any(was.get((i.host, i.image), i.id) != i.id for i in after)


def another_image(image: str, was: str, becomes: str) -> str:
    """`image NAME is another: ab12 → cd34`."""
    return f"image {image} is another: {short_id(was)} → {short_id(becomes)}"


def short_id(image_id: str) -> str:
    """As `docker images` shows it."""
    return image_id.removeprefix("sha256:")[:12]


def unmounted(machine: DesiredMachine, mounts: tuple[str, ...]) -> tuple[str, ...]:
    """Paths inside its container that the machine should see and does not; no `mounts`: nobody knows."""
    if machine.container is None or not mounts:
        return ()
    wanted = (HOME, *(v.target for v in machine.container.volumes))
    return tuple(path for path in wanted if path.rstrip("/") not in {m.rstrip("/") for m in mounts})


def reserved(machine: Machine) -> tuple[str, ...]:
    """The devices of slots 0, 1, …, as Docker takes them."""
    if machine.gpus.kind is GpuKind.NONE:
        return ()
    return machine.gpus.ids or tuple(map(str, range(machine.num_gpus)))


def device_of(machine: Machine, slot: int) -> str:
    """What CUDA calls the device of `slot` on a host that shows them all."""
    devices = reserved(machine)
    return devices[slot] if devices else str(slot)


def device_in_container(machine: Machine, slot: int) -> str:
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
    # Which image its name means is compared by itself: nobody may know.
    bare = unpinned(machine.container)
    return hashlib.sha256(msgspec.json.encode(bare, order="sorted")).hexdigest()[:16]
