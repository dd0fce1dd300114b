"""`emp api`, `emp monitor`, `emp eventlog`: the control plane's HTTP daemons, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.pass_obj
def api(root: Path) -> None:
    """Serve the HTTP API of the fleet that was applied in this folder."""
    from emp_orch.api.app import run
    from emp_orch.host import loops
    from emp_orch.layout import Layout
    from emp_orch.settings import load
    from emp_orch.web.serve import log_to_stderr

    log_to_stderr()
    layout = Layout(root)
    loops.run(run(layout, load(layout)))


@click.command()
@click.pass_obj
def monitor(root: Path) -> None:
    """Serve the monitor page, and pass its calls on to the API."""
    import asyncio

    from emp_orch.layout import Layout
    from emp_orch.monitor.server import run
    from emp_orch.settings import load
    from emp_orch.web.serve import log_to_stderr

    log_to_stderr()
    asyncio.run(run(load(Layout(root))))


@click.command()
@click.pass_obj
def eventlog(root: Path) -> None:
    """Write every event of the API's stream to logs/monitorEventStream.log."""
    import asyncio

    from emp_orch.layout import Layout
    from emp_orch.monitor.eventlog import run
    from emp_orch.settings import load
    from emp_orch.web.serve import log_to_stderr

    log_to_stderr()
    layout = Layout(root)
    asyncio.run(run(layout, load(layout)))
