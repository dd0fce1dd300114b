"""`emp apply`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.apply import publishing
from emp_orch.cli.apply.publishing import Agree, Asked
from emp_orch.cli.output.options import Duration, refuse_stdin
from emp_orch.cli.output.progress import Progress
from emp_orch.errors import UsageError

if TYPE_CHECKING:
    from emp_orch.control.apply.planfile import PlanFile
    from emp_orch.control.checks.proposed import Preview, Proposal
    from emp_orch.layout import Layout


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Remove machines that emp.yaml no longer names.")
@click.option("--allow-empty", is_flag=True, help="Let --prune remove all machines at once.")
@click.option("--allow-eviction", is_flag=True, help="Also on a Redis that may throw jobs away when it is full.")
@click.option("--take-over", is_flag=True, help="Also where a fleet that is gone left its keys in that Redis.")
@click.option("--pull", is_flag=True, help="Pull what registries have now by the names of containers' images, first.")
@click.option("--timeout", type=Duration(), default="5m", show_default=True, help="How long until all is ready.")
@click.option("--no-wait", is_flag=True, help="Publish and return; do not wait until it is so.")
@click.option("-w", "--watch", is_flag=True, help="Apply again at each change of the file, until Ctrl-C.")
@click.option("--plan", "plan", type=click.Path(path_type=Path), help="Carry out this plan of `emp diff --plan-out`.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def apply(
    directory: Path,
    file: Path | None,
    yes: bool,
    prune: bool,
    allow_empty: bool,
    allow_eviction: bool,
    take_over: bool,
    pull: bool,
    timeout: float,
    no_wait: bool,
    watch: bool,
    plan: Path | None,
    as_json: bool,
) -> None:
    """Make what runs match FILE [emp.yaml]: show what would change, ask, do it, wait until it is so.

    With --watch it goes on: each change of FILE, of .env and of files that hold secrets is applied; one that is wrong
    is told, and the last good generation stays. Ctrl-C ends the watch, and the fleet runs on.

    With --plan just what that file says is done, without a question; when emp.yaml, the generation in force or what
    runs is no longer as it was, nothing is.

    Exit: 0 done, 1 it did not work or waits for a person, 2 bad emp.yaml, 3 Redis out of reach, 4 not ready in time.
    """
    refuse_stdin(file, "emp apply")
    asked = Asked(
        yes=yes,
        prune=prune,
        allow_empty=allow_empty,
        timeout=timeout,
        no_wait=no_wait,
        as_json=as_json,
        allow_eviction=allow_eviction,
        take_over=take_over,
        pull=pull,
    )
    if watch:
        from emp_orch.cli.apply import watch as apply_watch

        if plan is not None:
            raise UsageError("a plan is carried out once: --plan and --watch exclude each other")
        apply_watch.watch(directory / (file or "emp.yaml"), asked)
        return
    made = None
    if plan is not None:
        from emp_orch.control.apply import planfile

        if pull:
            raise UsageError("a plan is of the images that were there: --plan and --pull exclude each other")
        if prune or allow_empty:
            raise UsageError("--prune and --allow-empty are part of a plan", hint="give them to `emp diff --plan-out`")
        made = planfile.read(directory / plan)
        asked = replace(asked, prune=made.prune, allow_empty=made.allow_empty)
    path = directory / (file or (made.file if made else "emp.yaml"))
    asyncio.run(_apply(path, asked, made, plan))


async def _apply(path: Path, asked: Asked, made: PlanFile | None, plan: Path | None) -> None:
    from emp_orch.control.apply.proposal import read_proposal

    layout, proposal = read_proposal(path, os.environ, here=True)
    with Progress() as progress:
        agree = None if made is None or plan is None else _by_plan(layout, path, proposal, made, plan, progress)
        published = await publishing.carry_out(layout, proposal, asked, progress, agree)
    if asked.as_json:
        import json

        click.echo(json.dumps(publishing.outcome(proposal, published, waited=not asked.no_wait)))
    else:
        click.echo(publishing.headline(proposal, published, waited=not asked.no_wait))
        publishing.where(layout, proposal)
    publishing.leave(published)


def _by_plan(layout: Layout, path: Path, proposal: Proposal, made: PlanFile, where: Path, progress: Progress) -> Agree:
    """Who looks at a plan file has said yes to it: no question, but nothing else than what it says."""

    async def agree(seen: Preview) -> None:
        from emp_orch.control.apply import planfile

        now = await planfile.planned(layout, path, proposal, seen, prune=made.prune, allow_empty=made.allow_empty)
        planfile.refuse_moved(made, now, where)
        publishing.show(proposal, seen, progress)

    return agree
