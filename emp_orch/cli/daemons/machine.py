"""`emp machine`, and the two programs it makes supervisord run: the agent and the shared set-up."""

from __future__ import annotations

import os
from pathlib import Path

import click

from emp_orch.cli.daemons.machine_join import forget, join, revoke
from emp_orch.cli.daemons.run import log_to_stderr
from emp_orch.cli.output.options import Duration
from emp_orch.errors import UsageError


class _MachineGroup(click.Group):
    """`emp machine ID` is `emp machine run ID`: no machine may be named as a subcommand (manifest/checks/semantic)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(
            ctx.command_path, "ID [OPTIONS] | --pool NAME [OPTIONS] | join ID | revoke ID | forget ID"
        )


@click.group(cls=_MachineGroup)
def machine() -> None:
    """Run a machine here, or let a box elsewhere join as one.

    `emp machine ID` is short for `emp machine run ID`.
    """


@machine.command("run", short_help="Run machine ID in the foreground.")
@click.argument("machine_id", envvar="MACHINE_ID", metavar="ID", required=False)
@click.option(
    "--pool",
    metavar="NAME",
    envvar="EMP_POOL",
    help="Instead of ID: join this pool, as a new member or the one it was.",
)
@click.option(
    "--as",
    "name",
    metavar="NAME",
    envvar="EMP_JOIN_AS",
    default="",
    help="What this box goes by in the pool: who comes back by it is the same member.",
)
@click.option(
    "--dir",
    "root",
    type=click.Path(path_type=Path),
    envvar="EMP_MACHINE_FOLDER",
    help="The machine's folder [.emp/machines/ID, of a box of a pool .emp/pools/NAME].",
)
@click.option("--logs", type=click.Path(path_type=Path), envvar="EMP_MACHINE_LOGS", help="Where its logs go [logs].")
@click.option("--stay", is_flag=True, help="Stay as supervisord's parent: SIGTERM drains the machine, then ends it.")
@click.option(
    "--notice",
    type=Duration(min=1),
    envvar="EMP_NOTICE",
    help="How long the box has after SIGTERM: jobs that do not end in time go back [as long as its workers may take].",
)
@click.option("--api", metavar="URL", help="Join through the fleet's API there [EMP_JOIN_URL].")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The token of `emp machine join` or `emp pool join` [EMP_JOIN_TOKEN_FILE, or EMP_JOIN_TOKEN itself].",
)
@click.pass_obj
def run(
    directory: Path,
    machine_id: str | None,
    pool: str | None,
    name: str,
    root: Path | None,
    logs: Path | None,
    stay: bool,
    notice: float | None,
    api: str | None,
    token_file: Path | None,
) -> None:
    """Run machine ID in the foreground: its supervisord, agent and programs.

    HUB_REDIS_URL (or REDIS_URL) says where its configuration is and where it reports; HUB_REDIS_URL_FILE names a
    file that holds that URL, with its password. A box that joins by itself learns it from the fleet's API, for a token.
    """
    import asyncio

    from emp_orch.host import notice as notices
    from emp_orch.layout import Layout
    from emp_orch.machine.boot.bootstrap import make, own_log, start
    from emp_orch.machine.boot.join import Membership, invitation_of, pooled_of
    from emp_orch.machine.home.folder import MachineFolder

    log_to_stderr()
    if bool(machine_id) == bool(pool):
        raise UsageError("a machine's ID or --pool NAME is needed, and not both", hint="see `emp machine run --help`")
    layout, pooled = Layout(directory), pooled_of(pool, name) if pool else None
    invitation = invitation_of(os.environ, api=api, token_file=token_file)
    usual = layout.pool(pool) if pool else layout.machine(machine_id or "")
    folder, logs = (root or usual).absolute(), (logs or layout.logs).absolute()
    membership = Membership(MachineFolder(folder), machine_id or "", invitation, pooled)
    if not machine_id:
        make(folder)
        machine_id = asyncio.run(membership.member_id())
    if stay:
        from emp_orch.machine.boot.foreground import Goodbye, run_in_foreground

        run_in_foreground(machine_id, folder, Goodbye(folder, membership, notice), logfile=own_log(machine_id, logs))
    else:
        notices.clear(folder)
    start(machine_id, folder, logs, membership, invited=invitation is not None or pooled is not None)


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
machine.add_command(forget)
