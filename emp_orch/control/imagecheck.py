"""Images that an apply is about to make containers from: one that nobody can pull is refused beforehand."""

from __future__ import annotations

import asyncio

from emp_orch.control.preview import Preview
from emp_orch.control.proposal import Proposal
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.desired import desired_machines
from emp_orch.fleet.hosts import image_build
from emp_orch.fleet.plan import Effect
from emp_orch.settings import EngineAddress

_NEW_CONTAINER = (Effect.START, Effect.RESTART, Effect.RECREATE)


async def refuse_missing_images(proposal: Proposal, seen: Preview) -> None:
    """Raise EmpError when a host lacks an image that only `emp images build` makes; all of them at once.

    A host that does not answer is not waited for: its machines are unknown, and say so.
    """
    wanted = _wanted(proposal, seen)
    hosts = [h for h in proposal.settings.hosts if h.name in wanted]
    looks = await asyncio.gather(*(asyncio.to_thread(_lacking, h, wanted[h.name]) for h in hosts))
    lacking = [(h, image) for h, images in zip(hosts, looks, strict=True) for image in images]
    if lacking:
        lines = [f"Docker host {h.name} ({h.url}) has no image {image}" for h, image in lacking]
        builds = " and ".join(f"`{image_build(h.name, h.url, image)}`" for h, image in lacking)
        raise EmpError("\n".join(lines), hint=f"{builds} makes it")


def _wanted(proposal: Proposal, seen: Preview) -> dict[str, set[str]]:
    """Of each host, the images of the machines that get a container."""
    new = {c.machine_id for c in seen.changes if c.effect in _NEW_CONTAINER}
    wanted: dict[str, set[str]] = {}
    for machine in desired_machines(proposal.fleet).values():
        if machine.container is not None and machine.id in new:
            wanted.setdefault(machine.container.host, set()).add(machine.container.image)
    return wanted


def _lacking(host: EngineAddress, images: set[str]) -> tuple[str, ...]:
    from emp_orch.runtimes.engine import Engine  # the Docker SDK takes its time to import

    engine = Engine(host)
    try:
        return engine.lacking(images)
    except Unreachable:
        return ()
    finally:
        engine.close()
