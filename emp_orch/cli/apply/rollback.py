"""`emp rollback` and `emp scale`: a generation that emp.yaml did not ask for, the same way as `emp apply`."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.apply import publishing
from emp_orch.cli.apply.publishing import Asked, Published
from emp_orch.cli.output.complete import generation_numbers, machine_ids
from emp_orch.cli.output.options import Duration
from emp_orch.cli.output.progress import Progress

if TYPE_CHECKING:
    from emp_orch.control.checks.proposed import Proposal
    from emp_orch.layout import Layout

MAX_GPUS = 64  # as the schema says of num_gpus
AUTO = "auto"

# The options of both, as those of `emp apply`.
_YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_TIMEOUT = click.option(
    "--timeout", type=Duration(), default="5m", show_default=True, help="How long to wait until all is ready."
)
_NO_WAIT = click.option("--no-wait", is_flag=True, help="Publish and return; do not wait until it is so.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")


@click.command()
@click.argument("number", type=click.IntRange(min=1), required=False, shell_complete=generation_numbers)
@_YES
@click.option("--prune", is_flag=True, help="Remove machines that generation NUMBER does not name.")
@click.option("--allow-empty", is_flag=True, help="Let --prune remove all machines at once.")
@_TIMEOUT
@_NO_WAIT
@_JSON
@click.pass_obj
def rollback(
    directory: Path,
    number: int | None,
    yes: bool,
    prune: bool,
    allow_empty: bool,
    timeout: float,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Publish generation NUMBER again, as a new one; without NUMBER, the one before the one in force.

    Shows what would change and asks, as `emp apply` does. `emp history` lists the generations. Where Redis is stays as
    it is; secrets get the values that they have now.

    Exit: 0 done, 1 it did not work, 2 no such generation or a secret without value, 3 Redis out of reach, 4 not ready
    in time.
    """
    asked = Asked(yes=yes, prune=prune, allow_empty=allow_empty, timeout=timeout, no_wait=no_wait, as_json=as_json)
    asyncio.run(_rollback(directory, number, asked))


async def _rollback(directory: Path, number: int | None, asked: Asked) -> None:
    from emp_orch.control.apply.earlier_generations import rolled_back
    from emp_orch.layout import Layout

    layout = Layout(directory)
    proposal = await rolled_back(layout, number, os.environ)
    published, differs = await _carry_out(layout, proposal, asked)
    if differs and not asked.as_json:
        lines = "\n".join(f"  {line}" for line in differs)
        click.echo(f"\nnote: emp.yaml still says otherwise, and the next `emp apply` makes it so:\n{lines}", err=True)
    publishing.leave(published)


@click.command()
@click.argument("machine", shell_complete=machine_ids)
@click.argument("slots", metavar="SLOTS|N|auto")
@click.option("--reason", default="", help="Why, of a pool's size; shown wherever it matters, with who said so.")
@_YES
@_TIMEOUT
@_NO_WAIT
@_JSON
@click.pass_obj
def scale(
    directory: Path, machine: str, slots: str, reason: str, yes: bool, timeout: float, no_wait: bool, as_json: bool
) -> None:
    """Give MACHINE another number of GPU slots, in place: what runs on the slots that stay is not touched.

    MACHINE may also be the name of replicas: each of them gets SLOTS. emp.yaml is not changed, so the next `emp apply`
    goes back to what it says.

    MACHINE may also be a pool: it is held at N members, whatever waits, until `emp scale POOL auto`. No generation is
    published for that, and a member at work is left until its job ends.

    Exit: 0 done, 1 it did not work, 2 no such machine or slots it cannot have, 3 Redis out of reach, 4 not ready
    in time.
    """
    from emp_orch.cli.commands.pool_size import pool_named, scale_pool
    from emp_orch.cli.output.names import lasting
    from emp_orch.fleet.model.pools import MAX_SIZE

    if (pool := pool_named(directory, machine)) is not None:
        scale_pool(directory, pool, None if slots == AUTO else _number(slots, MAX_SIZE), reason=reason, as_json=as_json)
        return
    count = _number(slots, MAX_GPUS)
    machine = lasting(directory, machine, what="scaling")
    asked = Asked(yes=yes, prune=False, allow_empty=False, timeout=timeout, no_wait=no_wait, as_json=as_json)
    asyncio.run(_scale(directory, machine, count, asked))


def _number(text: str, most: int) -> int:
    """Raises BadParameter, as click does for its own."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not 0 <= number <= most:
        raise click.BadParameter(f"{text!r} is not a number from 0 to {most}", param_hint="'SLOTS'")
    return number


async def _scale(directory: Path, machine: str, slots: int, asked: Asked) -> None:
    from emp_orch.control.apply.earlier_generations import scaled
    from emp_orch.layout import Layout

    layout = Layout(directory)
    proposal, before = await scaled(layout, machine, slots, os.environ)
    asked = replace(asked, prune=before.prune, allow_empty=before.allow_empty)
    published, _ = await _carry_out(layout, proposal, asked)
    old = {m.id: m.num_gpus for m in before.fleet.machines}
    chosen = [m.id for m in proposal.fleet.machines if m.num_gpus != old[m.id]]
    note = _kept_in_file(layout, proposal, chosen[0] if chosen else machine, slots)
    if note and not asked.as_json:
        click.echo(f"\nnote: {note}", err=True)
    publishing.leave(published)


def _kept_in_file(layout: Layout, proposal: Proposal, machine_id: str, slots: int) -> str:
    """That emp.yaml says something else, where, and how to keep the new number; empty when it says the same."""
    from emp_orch import manifest
    from emp_orch.control.apply.earlier_generations import file_of

    path = layout.root / file_of(proposal.fleet)
    try:
        said = manifest.num_gpus(path, os.environ, machine_id)
    except manifest.ConfigError:
        return f"{path.name} has problems now (emp validate); the next `emp apply` goes by what it says then"
    if said is None:
        return f"{path.name} no longer names {machine_id}"
    if said.value == slots:
        return ""
    form = f"num_gpus: {said.text}" if said.text else "nothing of num_gpus"
    means = f", which is {said.value} here" if said.text != str(said.value) else ""
    return f"{said.origin} says {form}{means}: the next `emp apply` goes back to it; write {slots} there to keep it"


async def _carry_out(layout: Layout, proposal: Proposal, asked: Asked) -> tuple[Published, tuple[str, ...]]:
    """Make it so and say it. Returns what came of it, and what emp.yaml says otherwise."""
    from emp_orch.control.apply.earlier_generations import still_says

    with Progress() as progress:
        published = await publishing.carry_out(layout, proposal, asked, progress)
    differs = still_says(layout, proposal.fleet, os.environ)
    waited = not asked.no_wait
    if asked.as_json:
        import json

        more: dict[str, Any] = {"why": published.generation.why, "emp_yaml_differs": list(differs)}
        click.echo(json.dumps({**publishing.outcome(proposal, published, waited=waited), **more}))
    else:
        click.echo(publishing.headline(proposal, published, waited=waited))
    return published, differs
