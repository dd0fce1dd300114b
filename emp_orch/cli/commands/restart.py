"""`emp restart`: ask the reconciler to restart a machine or one program, and wait for the outcome."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from emp_orch.cli.output.complete import names, programs
from emp_orch.cli.output.options import Duration


@click.command()
@click.argument("machine", shell_complete=names)
@click.argument("program", required=False, shell_complete=programs)
@click.option("--timeout", type=Duration(), default="2m", show_default=True, help="How long to wait for the outcome.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def restart(directory: Path, machine: str, program: str | None, timeout: float, as_json: bool) -> None:
    """Restart MACHINE, or only PROGRAM on it (such as comfyui-gpu0). Also resets its backoff.

    A program may be named as any command prints it: MACHINE PROGRAM, MACHINE/PROGRAM, a worker's id.
    """
    from emp_orch.cli.output.names import program_named
    from emp_orch.control.apply import restarting
    from emp_orch.fleet.drift.leftovers import told
    from emp_orch.layout import Layout

    name = program_named(directory, machine, program)
    answer = asyncio.run(restarting.restart(Layout(directory), name, timeout))
    subject = f"{name.machine} {name.program}" if name.program else name.machine
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps({"restarted": subject, "ended": msgspec.to_builtins(answer.left)}))
    else:
        click.echo("\n  ".join(filter(None, (f"{subject} was restarted", told(answer.left)))))
