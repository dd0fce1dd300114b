"""`emp machine`, and the two programs it makes supervisord run: the agent and the shared set-up."""

from __future__ import annotations

import os
from pathlib import Path

import click

from emp_orch.cli.daemons.machine_join import join, revoke
from emp_orch.cli.daemons.run import log_to_stderr


class _MachineGroup(click.Group):
    """`emp machine ID` is `emp machine run ID`: no machine may be named as a subcommand (manifest/checks/semantic)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "ID [OPTIONS] | join ID | revoke ID")


@click.group(cls=_MachineGroup)
def machine() -> None:
    """Run a machine here, or let a box elsewhere join as one.

    `emp machine ID` is short for `emp machine run ID`.
    """


@machine.command("run", short_help="Run machine ID in the foreground.")
@click.argument("machine_id", envvar="MACHINE_ID", metavar="ID")
@click.option(
    "--dir",
    "root",
    type=click.Path(path_type=Path),
    envvar="EMP_MACHINE_FOLDER",
    help="The machine's folder [.emp/machines/ID].",
)
@click.option("--logs", type=click.Path(path_type=Path), envvar="EMP_MACHINE_LOGS", help="Where its logs go [logs].")
@click.option("--stay", is_flag=True, help="Stay as supervisord's parent: SIGTERM drains the machine, then ends it.")
@click.option("--api", metavar="URL", help="Join through the fleet's API there [EMP_JOIN_URL].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The token of `emp machine join` [EMP_JOIN_TOKEN_FILE, or EMP_JOIN_TOKEN itself].",
)
@click.pass_obj
def run(
    directory: Path,
    machine_id: str,
    root: Path | None,
    logs: Path | None,
    stay: bool,
    api: str | None,
    token_file: Path | None,
) -> None:
    """Run machine ID in the foreground: its supervisord, agent and programs.

    HUB_REDIS_URL (or REDIS_URL) says where its configuration is and where it reports; HUB_REDIS_URL_FILE names a
    file that holds that URL, with its password. A box that joins by itself learns it from the fleet's API, for a token.
    """
    from emp_orch.layout import Layout
    from emp_orch.machine.boot.bootstrap import own_log, start
    from emp_orch.machine.boot.join import invitation_of

    log_to_stderr()
    layout = Layout(directory)
    invitation = invitation_of(os.environ, api=api, token_file=token_file)
    folder, logs = (root or layout.machine(machine_id)).absolute(), (logs or layout.logs).absolute()
    if stay:
        from emp_orch.machine.boot.foreground import run_in_foreground

        run_in_foreground(machine_id, folder, logfile=own_log(machine_id, logs))
    start(machine_id, folder, logs, invitation)


@click.command()
def machine_agent() -> None:
    """The machine agent; supervisord starts it as an event listener."""
    import asyncio

    from emp_orch.machine.agent.agent import run_agent

    log_to_stderr()
    asyncio.run(run_agent())


@click.command()
def machine_setup() -> None:
    """The shared set-up step; supervisord runs it before anything else."""
    from emp_orch.machine.boot.setup import shared_setup

    click.echo(shared_setup())


machine.add_command(join)
machine.add_command(revoke)
