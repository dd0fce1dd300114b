"""The `emp` command: a table of subcommands, each imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from emp_orch import __version__
from emp_orch.errors import EmpError, Exit, UsageError
from emp_orch.plaintext import many_lines

# name → (module under emp_orch.cli, attribute, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("apply.init", "init", "Write an emp.yaml to start from."),
    "validate": ("commands.manifest", "validate", "Check emp.yaml; name every problem in it."),
    "schema": ("commands.manifest", "schema", "Print the JSON Schema of emp.yaml."),
    "events": ("inspect.events", "events", "What happened to machines, workers and jobs."),
    "api": ("daemons.http", "api", "The HTTP API."),
    "monitor": ("daemons.http", "monitor", "The monitor page."),
    "eventlog": ("daemons.http", "eventlog", "Writes the API's events to a log file."),
    "submit": ("jobs.submit", "submit", "Queue a job, or a file of jobs, and wait for the end if asked."),
    "jobs": ("jobs.group", "jobs", "List, show, explain, retry, cancel and purge jobs; lanes."),
    "cancel": ("jobs.edit", "cancel", "Cancel jobs."),
    "worker": ("worker", "worker", "One worker, for one GPU slot of a machine."),
    "simulate": ("daemons.simulate", "simulate", "The simulation service: a stand-in for ComfyUI."),
    "comfyui": ("daemons.comfyui", "comfyui", "ComfyUI for one GPU slot, with folders of its own; it becomes main.py."),
    "machine": (
        "daemons.machine",
        "machine",
        "Run one machine here; `join`, `revoke`: let boxes elsewhere be machines.",
    ),
    "pool": ("commands.pool", "pool", "`join`, `revoke`: the one line by which boxes join a pool, and its end."),
    "provider": ("commands.provider", "provider", "`test`: whether a program of yours can start the boxes of a pool."),
    "machine-agent": ("daemons.machine", "machine_agent", "A machine's agent (an event listener of its supervisord)."),
    "machine-setup": ("daemons.machine", "machine_setup", "A machine's shared set-up step."),
    "apply": ("apply.apply", "apply", "Make what runs match emp.yaml, and wait until it is so."),
    "diff": ("apply.diff", "diff", "Show what differs from what was applied; changes nothing."),
    "history": ("inspect.history", "history", "The generations that were applied, and what each changed."),
    "rollback": ("apply.rollback", "rollback", "Go back to a generation: publish it again as a new one."),
    "scale": ("apply.rollback", "scale", "Give a machine more or fewer GPU slots, in place; hold a pool at a size."),
    "start": ("apply.start", "start", "Bring up what is in force, after `emp stop` or a reboot; publishes nothing."),
    "stop": ("apply.down", "down", "The same as `emp down`."),
    "down": ("apply.down", "down", "Stop this folder's fleet, and nothing else."),
    "boot": ("commands.boot", "boot", "Let systemd bring the fleet up at boot: install, remove, status."),
    "restart": ("commands.restart", "restart", "Restart a machine, or one of its programs."),
    "pause": ("commands.orders", "pause", "Let the reconciler act no more: on the fleet, a machine, a program."),
    "resume": ("commands.orders", "resume", "End a pause or a drain; close an open breaker."),
    "drain": ("commands.orders", "drain", "Let a machine's workers finish their jobs and end."),
    "explain": ("inspect.explain", "explain", "One drift: since when, why, what was tried, what you can do."),
    "journal": ("inspect.journal", "journal", "What was seen, decided and done, and what came of it."),
    "status": ("inspect.status", "status", "What runs: control plane, machines, workers, jobs, drift."),
    "pools": ("inspect.pools", "pools", "The pools: their members, the size they should have, and why."),
    "logs": ("inspect.logs", "logs", "The logs of all components, or of some; follow them, clear them."),
    "top": ("inspect.top", "top", "What machines and their programs use, live."),
    "exec": ("commands.exec", "exec_", "Run a command in a machine."),
    "doctor": ("commands.doctor", "doctor", "Find what is wrong, and the way out."),
    "images": ("commands.images", "images", "Build and list the image that containers are made from."),
    "keys": ("commands.keys", "keys", "`rotate`: draw the key anew by which machines know their orders."),
    "render": ("apply.render", "render", "Show the supervisord.conf of each machine, the compose.yaml of each host."),
    "control": ("daemons.control", "control", "The control plane's supervisord."),
    "redis": ("daemons.control", "redis", "The embedded Redis."),
    "reconcile": ("daemons.control", "reconcile", "The reconciler."),
}

# Started by supervisord; useful by hand, but not the first thing a user needs to see.
DAEMONS = frozenset(
    {
        "redis",
        "api",
        "monitor",
        "reconcile",
        "eventlog",
        "machine",
        "machine-agent",
        "machine-setup",
        "worker",
        "simulate",
        "comfyui",
    }
)


class LazyGroup(click.Group):
    """Lists subcommands from the table, so that `emp --help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"emp_orch.cli.{module}"), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in (
            ("Commands", [n for n in COMMANDS if n not in DAEMONS]),
            ("Daemons (supervisord starts these)", [n for n in COMMANDS if n in DAEMONS]),
        ):
            if names:
                with formatter.section(title):
                    formatter.write_dl([(n, COMMANDS[n][2]) for n in names])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emp")
@click.option(
    "-C",
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Work in this folder instead of the current one.",
)
@click.pass_context
def cli(ctx: click.Context, directory: Path | None) -> None:
    """Declare a GPU fleet in emp.yaml, bring it up, keep it that way, and see the difference live."""
    ctx.obj = (directory or Path.cwd()).absolute()
    try:
        str(ctx.obj).encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the name of the folder {str(ctx.obj)!a} is not UTF-8 text", hint="rename it: no file could name it"
        ) from None


def main() -> None:
    """Entry point: errors become one line and a hint on stderr, and the exit code of DESIGN.md §8."""
    try:
        # Not standalone, click returns the code that a command gave to ctx.exit.
        sys.exit(cli.main(standalone_mode=False) or Exit.OK)
    except click.exceptions.Abort:
        click.echo("emp: stopped", err=True)
        sys.exit(Exit.FAILED)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.ClickException as e:
        e.show()
        sys.exit(Exit.USAGE)
    except EmpError as e:
        click.echo(f"emp: {many_lines(e.message)}", err=True)
        if e.hint:
            click.echo(f"     {many_lines(e.hint)}", err=True)
        sys.exit(e.exit_code)
    except BrokenPipeError:
        sys.exit(Exit.OK)
    except OSError as e:  # the operating system's no is no fault of emp's
        if "EMP_DEBUG" in os.environ:
            raise
        from emp_orch.cli.output.refused import refusal

        why = refusal(e)
        click.echo(f"emp: {many_lines(why.message)}", err=True)
        click.echo(f"     {many_lines(why.hint)}", err=True)
        sys.exit(why.exit_code)
    except Exception as e:  # the last place to keep a traceback from a user
        if "EMP_DEBUG" in os.environ:
            raise
        click.echo(f"emp: a fault in emp itself: {type(e).__name__}: {many_lines(str(e))}", err=True)
        click.echo("     EMP_DEBUG=1 shows where; please report it", err=True)
        sys.exit(Exit.FAILED)
