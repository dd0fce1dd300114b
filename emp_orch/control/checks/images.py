"""Which image each name means on its Docker host: looked up when emp.yaml is read, fixed in the generation.

What a generation was applied with stays what its containers are made from, whatever the name means later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from emp_orch.control.checks.proposed import Proposal
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.desired.values import DesiredContainer
from emp_orch.fleet.model.fleet import Fleet, ImageThere
from emp_orch.fleet.plan.operations import Effect
from emp_orch.images import built_here
from emp_orch.settings import EngineAddress

if TYPE_CHECKING:
    from emp_orch.control.checks.proposed import Preview

Tell = Callable[[str], None]

_NEW_CONTAINER = (Effect.START, Effect.RESTART, Effect.RECREATE)


async def pinned(proposal: Proposal, before: Fleet | None, tell: Tell | None = None) -> Fleet:
    """The proposal's fleet with the images that its names mean now; those that a generation of before fixed stay.

    Of a host that does not answer, and of an image that is gone by that name, `before` is believed. With
    `proposal.pull` what a registry has is pulled first, and each step told. Raises EmpError for what cannot be pulled.
    """
    fleet = proposal.fleet
    if not proposal.looks_up:
        return fleet
    known = {(i.host, i.image): i for i in before.images} if before is not None else {}
    wanted = images_by_host(fleet)
    hosts = [h for h in proposal.settings.hosts if h.name in wanted]
    pull = tell if proposal.pull else None
    looks = await asyncio.gather(*(asyncio.to_thread(_look_up, h, wanted[h.name], known, pull) for h in hosts))
    return structs.replace(fleet, images=tuple(i for found in looks for i in found))


def images_by_host(fleet: Fleet) -> dict[str, set[str]]:
    """Of each Docker host, the images that its machines are made from."""
    wanted: dict[str, set[str]] = {}
    for machine in desired_machines(fleet).values():
        if machine.container is not None:
            wanted.setdefault(machine.container.host, set()).add(machine.container.image)
    return wanted


def _look_up(
    host: EngineAddress, images: set[str], known: Mapping[tuple[str, str], ImageThere], tell: Tell | None
) -> list[ImageThere]:
    from emp_orch.runtimes.compose.engine import Engine  # the Docker SDK takes its time to import
    from emp_orch.runtimes.compose.images import id_of, meant, pull

    engine = Engine(host)
    found: list[ImageThere] = []
    try:
        for image in sorted(images):
            before = known.get((host.name, image))
            try:
                if tell is not None and not built_here(image):
                    pull(engine, image, tell)
                now = meant(engine, image)
            except Unreachable as e:
                if tell is not None:
                    raise EmpError(f"cannot pull {image}: {e.message}", hint=e.hint) from e
                now = before
            if now is None and before is not None and id_of(engine, before.id):
                now = before
            if now is not None:
                found.append(now)
    finally:
        engine.close()
    return found


async def have_images(proposal: Proposal, seen: Preview, tell: Tell) -> Proposal:
    """See to it that the images of all new containers are on their hosts, before anything is published or stopped: the
    proposal, with what it now knows of them.

    A host that does not answer is not waited for: its machines are unknown, and say so. Raises EmpError with all that
    cannot be had.
    """
    fleet = structs.replace(proposal.fleet, images=seen.images)
    new = {c.machine_id for c in seen.changes if c.effect in _NEW_CONTAINER}
    containers = [m.container for i, m in desired_machines(fleet).items() if m.container is not None and i in new]
    hosts = [h for h in proposal.settings.hosts if any(c.host == h.name for c in containers)]
    looks = await asyncio.gather(*(asyncio.to_thread(_have, h, containers, tell) for h in hosts))
    if lacking := [e for _, errors in looks for e in errors]:
        hints = dict.fromkeys(e.hint for e in lacking if e.hint)
        raise EmpError("\n".join(e.message for e in lacking), hint="; ".join(hints))
    known = {(i.host, i.image) for i in fleet.images}
    images = (*fleet.images, *(i for found, _ in looks for i in found if (i.host, i.image) not in known))
    return structs.replace(proposal, fleet=structs.replace(fleet, images=images))


def _have(
    host: EngineAddress, containers: list[DesiredContainer], tell: Tell
) -> tuple[list[ImageThere], list[EmpError]]:
    """What the host's images are now, and what it cannot have; nothing of a host that does not answer."""
    from emp_orch.runtimes.compose.engine import Engine
    from emp_orch.runtimes.compose.images import have, meant

    engine = Engine(host)
    found: list[ImageThere] = []
    errors: list[EmpError] = []
    unlike = {(c.image, c.image_id): c for c in containers if c.host == host.name}
    try:
        for container in unlike.values():
            try:
                have(engine, container, tell)
                if not container.image_id and (now := meant(engine, container.image)) is not None:
                    found.append(now)
            except Unreachable:
                return found, errors
            except EmpError as e:
                errors.append(e)
    finally:
        engine.close()
    return found, errors
