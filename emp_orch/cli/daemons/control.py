"""The daemons of the control plane that are not HTTP servers: its supervisord, embedded Redis, the reconciler."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from emp_orch.cli.daemons.run import log_to_stderr


@click.command()
@click.option("--part", type=click.Choice(["api", "reconcile", "monitor", "eventlog"]), help="Only this daemon.")
@click.pass_obj
def control(directory: Path, part: str | None) -> None:
    """Become the control plane's supervisord, or with --part one daemon in a container; `emp apply` starts this."""
    from emp_orch.control.plane.part import run_part
    from emp_orch.control.plane.supervisord_plane import become_supervisord
    from emp_orch.layout import Layout

    if part is not None:
        sys.exit(run_part(Layout(directory), part))
    become_supervisord(Layout(directory))


@click.command()
@click.pass_obj
def redis(directory: Path) -> None:
    """Run the embedded Redis of the fleet in this folder."""
    from emp_orch import settings
    from emp_orch.control.plane import embedded
    from emp_orch.layout import Layout

    layout = Layout(directory)
    embedded.run(layout, settings.load(layout))


@click.command()
@click.pass_obj
def reconcile(directory: Path) -> None:
    """Run the reconciler of the fleet in this folder."""
    import asyncio

    from emp_orch import settings
    from emp_orch.control.reconciler.daemon import run_reconciler
    from emp_orch.layout import Layout

    log_to_stderr()
    layout = Layout(directory)
    asyncio.run(run_reconciler(layout, settings.load(layout)))
