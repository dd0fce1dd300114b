"""What an apply asks of Docker hosts before anything starts: images that nobody can pull, and whether a host that is
reached another way is the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from emp_orch import settings as settings_files
from emp_orch.control.preview import Preview
from emp_orch.control.proposal import Proposal
from emp_orch.errors import EmpError, Unreachable
from emp_orch.fleet.desired import desired_machines
from emp_orch.fleet.hosts import image_build
from emp_orch.fleet.plan import Effect
from emp_orch.layout import Layout
from emp_orch.settings import EngineAddress

if TYPE_CHECKING:
    from emp_orch.runtimes.engine import Container, Engine

T = TypeVar("T")

_NEW_CONTAINER = (Effect.START, Effect.RESTART, Effect.RECREATE)


async def refuse_other_engines(layout: Layout, proposal: Proposal) -> None:
    """Raise EmpError when a host's new address leads to another engine than the one that its machines run on.

    They would be made a second time, and nobody would know of the first. An old address that does not answer any more
    hinders nothing: such a host is gone, and its name may be given to the next.
    """
    known = settings_files.known(layout)
    before = {h.name: h for h in known.hosts} if known else {}
    moved = [(before[h.name], h) for h in proposal.settings.hosts if h.name in before and before[h.name].url != h.url]
    found = await asyncio.gather(*(asyncio.to_thread(_left_behind, layout, old, new) for old, new in moved))
    lines = [
        f"host {old.name}: {new.url} is another engine than {old.url}, which has {', '.join(machines)}"
        for (old, new), machines in zip(moved, found, strict=True)
        if machines
    ]
    if lines:
        raise EmpError(
            "\n".join(lines),
            hint="give the new engine a name of its own and move machines there, or run `emp down` before",
        )


def _left_behind(layout: Layout, old: EngineAddress, new: EngineAddress) -> list[str]:
    """Machines whose containers the engine at the `old` address has, and that at the `new` one has not."""
    from emp_orch.runtimes.docker_hosts import MACHINE
    from emp_orch.runtimes.host_folder import folder_digest

    def machines(engine: Engine) -> list[Container]:
        return engine.containers((f"emp.folder={folder_digest(layout)}", MACHINE))

    there = _asked(old, machines)
    if not there:
        return []
    here = {c.id for c in _asked(new, machines, must=True) or ()}
    return sorted({c.labels[MACHINE] for c in there if c.id not in here})


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
    return _asked(host, lambda engine: engine.lacking(images)) or ()


def _asked(host: EngineAddress, question: Callable[[Engine], T], *, must: bool = False) -> T | None:
    """The engine's answer; None when it gives none. Raises EngineAway then when there `must` be one."""
    from emp_orch.runtimes.engine import Engine  # the Docker SDK takes its time to import

    engine = Engine(host)
    try:
        return question(engine)
    except Unreachable:
        if must:
            raise
        return None
    finally:
        engine.close()
