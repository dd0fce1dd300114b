"""`emp machine`, and the two programs it makes supervisord run: the agent and the shared set-up."""

from __future__ import annotations

from pathlib import Path

import click

from emp_orch.cli.daemon import log_to_stderr


@click.command()
@click.argument("machine_id", envvar="MACHINE_ID")
@click.option(
    "--dir",
    "root",
    type=click.Path(path_type=Path),
    envvar="EMP_MACHINE_FOLDER",
    help="The machine's folder [.emp/machines/ID].",
)
@click.option("--logs", type=click.Path(path_type=Path), envvar="EMP_MACHINE_LOGS", help="Where its logs go [logs].")
@click.option("--stay", is_flag=True, help="Stay as supervisord's parent: SIGTERM drains the machine, then ends it.")
@click.pass_obj
def machine(directory: Path, machine_id: str, root: Path | None, logs: Path | None, stay: bool) -> None:
    """Run machine MACHINE_ID in the foreground: its supervisord, agent and programs.

    HUB_REDIS_URL (or REDIS_URL) says where its configuration is and where it reports; HUB_REDIS_URL_FILE names a
    file that holds that URL, with its password.
    """
    from emp_orch.layout import Layout
    from emp_orch.machine.bootstrap import own_log, start

    log_to_stderr()
    layout = Layout(directory)
    folder, logs = (root or layout.machine(machine_id)).absolute(), (logs or layout.logs).absolute()
    if stay:
        from emp_orch.machine.stay import stay_above

        stay_above(folder, logfile=own_log(machine_id, logs))
    start(machine_id, folder, logs)


@click.command()
def machine_agent() -> None:
    """The machine agent; supervisord starts it as an event listener."""
    import asyncio

    from emp_orch.machine.agent import run_agent

    log_to_stderr()
    asyncio.run(run_agent())


@click.command()
def machine_setup() -> None:
    """The shared set-up step; supervisord runs it before anything else."""
    from emp_orch.machine.setup import shared_setup

    click.echo(shared_setup())
