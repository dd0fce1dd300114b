"""`emp exec`: run a command in a machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from emp_orch.cli.output.complete import names
from emp_orch.errors import UsageError
from emp_orch.machine.launch import CANNOT_RUN, NOT_FOUND

if TYPE_CHECKING:
    from emp_orch.control.status.exec import ExecCall


@click.command(
    "exec",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
    options_metavar="[-T]",
)
@click.option("-T", "--no-tty", is_flag=True, help="No terminal for the command, though you have one.")
@click.argument("machine", shell_complete=names)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND…")
@click.pass_obj
def exec_(directory: Path, no_tty: bool, machine: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in MACHINE, without a shell: emp exec farm -- nvidia-smi, emp exec farm -- sh -c 'ls *'.

    In a container it runs as the machine's user, with what the container was made with, and a terminal if stdin and
    stdout are one. A machine of processes is no place of its own: there COMMAND is a process of this host, yours, in
    the machine's folder and with the environment that its programs get, without their secrets; nobody supervises it,
    and `emp down` does not end it. A program's name stands for its machine. A box that joined by itself is out of
    emp's reach.

    Exit: COMMAND's; 126 and 127 when it cannot be run or found; before it runs 1, 2 or 3 as of every command.
    """
    from emp_orch.cli.output.names import named
    from emp_orch.control.status.exec import exec_call
    from emp_orch.control.status.location import find
    from emp_orch.layout import Layout

    words = command[1:] if command[:1] == ("--",) else command
    if not words:
        raise UsageError("no command was given", hint=f"for example: emp exec {machine} -- sh")
    layout = Layout(directory)
    location = asyncio.run(find(layout, named(directory, machine).machine))
    terminal = not no_tty and sys.stdin.isatty() and sys.stdout.isatty()
    become(exec_call(layout, location, words, terminal=terminal))


def become(wanted: ExecCall) -> NoReturn:
    """Turn into the command, so that signals, streams and its exit code are its own."""
    program = wanted.argv[0]
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these, and what is ignored stays so over an exec.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        if wanted.cwd is not None:
            os.chdir(wanted.cwd)
        os.execvpe(program, wanted.argv, wanted.env)  # noqa: S606  # no shell: argv as it was given
    except (FileNotFoundError, NotADirectoryError):
        _fail(f"{program}: not found", NOT_FOUND)
    except (OSError, ValueError) as e:
        _fail(f"{program}: {e.strerror if isinstance(e, OSError) else e}", CANNOT_RUN)


def _fail(why: str, code: int) -> NoReturn:
    click.echo(f"emp: {why}", err=True)
    sys.exit(code)
