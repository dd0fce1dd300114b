"""`emp apply` and `emp down`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from emp_orch.cli import publishing
from emp_orch.cli.progress import Progress
from emp_orch.cli.publishing import Asked
from emp_orch.errors import UsageError


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Remove machines that emp.yaml no longer names.")
@click.option("--allow-empty", is_flag=True, help="Let --prune remove all machines at once.")
@click.option("--timeout", type=float, default=300.0, show_default=True, help="Seconds to wait until all is ready.")
@click.option("--no-wait", is_flag=True, help="Publish and return; do not wait until it is so.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def apply(
    directory: Path,
    file: Path | None,
    yes: bool,
    prune: bool,
    allow_empty: bool,
    timeout: float,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Make what runs match FILE [emp.yaml]: show what would change, ask, do it, wait until it is so.

    Exit: 0 done, 1 it did not work, 2 bad emp.yaml, 3 Redis out of reach, 4 not ready in time.
    """
    path = file if file is not None and file.is_absolute() else directory / (file or "emp.yaml")
    asked = Asked(yes=yes, prune=prune, allow_empty=allow_empty, timeout=timeout, no_wait=no_wait, as_json=as_json)
    asyncio.run(_apply(path, asked))


async def _apply(path: Path, asked: Asked) -> None:
    from emp_orch.control.proposal import read_proposal

    layout, proposal = read_proposal(path, os.environ)
    with Progress() as progress:
        published = await publishing.carry_out(layout, proposal, asked, progress)
    if asked.as_json:
        import json

        click.echo(json.dumps(publishing.outcome(proposal, published, waited=not asked.no_wait)))
    else:
        click.echo(publishing.headline(proposal, published, waited=not asked.no_wait))
        publishing.where(layout, proposal)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def down(directory: Path, as_json: bool) -> None:
    """Stop this folder's fleet: its machines, then its control plane, and nothing else.

    Data stays: the next `emp apply` goes on with the same generation and jobs.
    """
    from emp_orch.control.down import bring_down
    from emp_orch.layout import Layout

    layout = Layout(directory)
    if not layout.control.is_dir():
        raise UsageError(
            f"no fleet was applied in {layout.root}", hint="run `emp apply` here, or name its folder: emp -C DIR down"
        )
    with Progress() as progress:
        stopped = asyncio.run(bring_down(layout, progress.stage))
    if as_json:
        import json

        click.echo(json.dumps({"stopped": stopped}))
    else:
        names = ", ".join(stopped) or "no machine ran"
        click.echo(f"the fleet is down ({names}); its data stays in {layout.state}")
