"""`emp start`: bring up what is in force, and publish nothing."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from emp_orch import settings as settings_files
from emp_orch.control.apply import publish as steps
from emp_orch.control.apply.earlier_generations import generation_in_force
from emp_orch.control.apply.preview import preview
from emp_orch.control.checks.proposed import Proposal
from emp_orch.control.host import generation as generations
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.errors import EmpError
from emp_orch.host.ownership import refuse_to_apply
from emp_orch.layout import Layout
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis import client


class Started(Struct, frozen=True, kw_only=True):
    """`ran`: the control plane was up already, and so nothing but what it lacked was started."""

    proposal: Proposal
    generation: Generation
    ran: bool


async def start(layout: Layout, environ: Mapping[str, str]) -> Started:
    """Bring the control plane up, whose reconciler starts the machines. Raises as past.standing and apply.bring_up."""
    refuse_to_apply(layout.root)
    ran: bool | None = None
    while True:
        proposal, generation = await generation_in_force(layout, environ)
        plane = plane_of(layout)
        runs = plane.identity() is not None
        ran = runs if ran is None else ran
        if runs:
            # What it runs with stays: a secret that is another now is for `emp apply` to bring in.
            proposal = structs.replace(proposal, settings=settings_files.load(layout))
            await plane.start_stopped()
            await plane.wait_ready(proposal.settings)
        else:
            seen = await preview(layout, proposal, prune=generation.prune, allow_empty=generation.allow_empty)
            _keep_package(layout, generation)
            proposal = await steps.bring_up(layout, proposal, seen, _silent, _silent)
        async with client.connected(proposal.settings.redis_url, owner=proposal.settings.redis_owner) as r:
            current = await steps.Session(layout, proposal.settings, r).current()
        if current is None:
            raise EmpError(f"fleet {proposal.settings.fleet} has no generation any more", hint="run `emp apply`")
        if current.number == generation.number:
            generations.keep(layout, current)
            return Started(proposal=proposal, generation=current, ran=ran)
        # The embedded Redis knew of a later one than the disk: that is in force.


def _silent(_: str) -> None:
    """Nobody is told: what hinders the fleet is drift."""


def _keep_package(layout: Layout, generation: Generation) -> None:
    """The package that it names is in use again, so not the oldest of those that are kept."""
    if generation.package is not None and (path := layout.package(generation.package.digest)).is_file():
        path.touch()
