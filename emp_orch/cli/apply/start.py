"""`emp start`: the generation in force, up again; `emp stop` is `emp down` by the name that goes with it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.apply import publishing
from emp_orch.cli.apply.publishing import Published
from emp_orch.cli.output.options import Duration
from emp_orch.cli.output.progress import Progress
from emp_orch.errors import UsageError

if TYPE_CHECKING:
    from emp_orch.control.apply.starting import Started
    from emp_orch.layout import Layout


@click.command()
@click.option("--timeout", type=Duration(), default="5m", show_default=True, help="How long until all is ready.")
@click.option("--no-wait", is_flag=True, help="Return once the control plane is up; do not wait for the machines.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--foreground", is_flag=True, help="Stay, and stop the fleet on TERM or Ctrl-C: for service managers.")
@click.pass_obj
def start(directory: Path, timeout: float, no_wait: bool, as_json: bool, foreground: bool) -> None:
    """Bring up what was in force when the fleet went down: after `emp stop`, after a reboot.

    Nothing is published, and emp.yaml is not read: what `emp scale` or `emp rollback` did last stays. Secrets are taken
    from the environment, .env and files as by `emp apply`; one that has no value there keeps its last. Where the fleet
    runs already, what it lacks is started.

    With --foreground it stays as long as the control plane runs, tells systemd (Type=notify) once that is up, and stops
    the fleet when it is told to end; it exits with 1 when the control plane ended by itself.

    Exit: 0 done or it ran already, 1 it did not work or waits for a person, 2 nothing was applied here or a secret
    without value, 3 Redis out of reach, 4 not ready in time.
    """
    if foreground and as_json:
        raise UsageError("--json says how a start ended: not with --foreground")
    if foreground:
        from emp_orch.cli.apply.start_foreground import run_in_foreground

        run_in_foreground(directory)
    else:
        asyncio.run(_start(directory, timeout, no_wait, as_json))


async def _start(directory: Path, timeout_s: float, no_wait: bool, as_json: bool) -> None:
    from emp_orch.control.apply.starting import start as bring_up
    from emp_orch.layout import Layout

    layout = Layout(directory)
    with Progress() as progress:
        progress.stage("control plane")
        started = await bring_up(layout, os.environ)
        published = Published(generation=started.generation, unchanged=started.ran)
        if started.ran:
            progress.line(f"{started.proposal.settings.fleet} runs already")
        if not no_wait:
            published = await publishing.waited_for(layout, published, timeout_s, progress)
    _tell(layout, started, published, waited=not no_wait, as_json=as_json)
    publishing.leave(published)


def _tell(layout: Layout, started: Started, published: Published, *, waited: bool, as_json: bool) -> None:
    from emp_orch.control.apply.earlier_generations import still_says

    proposal = started.proposal
    differs = still_says(layout, proposal.fleet, os.environ)
    if as_json:
        import json

        outcome = publishing.outcome(proposal, published, waited=waited)
        click.echo(json.dumps({**outcome, "emp_yaml_differs": list(differs)}))
        return
    state = "is ready" if waited else "runs already" if started.ran else "is starting"
    head = f"{proposal.settings.fleet} {state}: {publishing.sizes(proposal, published)}"
    click.echo(publishing.headline(proposal, published, waited=waited) if published.away else head)
    publishing.where(layout, proposal)
    if differs:
        lines = "\n".join(f"  {line}" for line in differs)
        click.echo(f"\nnote: emp.yaml says otherwise, and the next `emp apply` makes it so:\n{lines}", err=True)
