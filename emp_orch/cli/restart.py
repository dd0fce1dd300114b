"""`emp restart`: ask the reconciler to restart a machine or one program, and wait for the outcome."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from emp_orch.cli.complete import names, programs
from emp_orch.cli.options import Duration
from emp_orch.errors import EmpError, WaitTimeout


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
    from emp_orch.cli.names import program_named

    name = program_named(directory, machine, program)
    asyncio.run(_restart(directory, name.machine, name.program, timeout))
    subject = f"{name.machine} {name.program}" if name.program else name.machine
    if as_json:
        import json

        click.echo(json.dumps({"restarted": subject}))
    else:
        click.echo(f"{subject} was restarted")


async def _restart(directory: Path, machine: str, program: str | None, within_s: float) -> None:
    from emp_orch import settings as settings_files
    from emp_orch.layout import Layout
    from emp_orch.store import connect, requests
    from emp_orch.store.events import Events
    from emp_orch.store.keys import Keys

    settings = settings_files.load(Layout(directory))
    keys = Keys(settings.prefix)
    verb = requests.Verb.RESTART_PROGRAM if program else requests.Verb.RESTART_MACHINE
    request = requests.Request(verb=verb, machine_id=machine, program=program, by="cli")
    async with connect.connected(settings.redis_url) as r:
        events = Events(r, keys)
        after = await events.latest_id()
        request_id = await requests.ask(r, keys, settings.fleet, request)
        try:
            async with asyncio.timeout(within_s):
                async for batch in events.follow(after):
                    for event in batch:
                        if event.type == "request_done" and event.data.get("request_id") == request_id:
                            if not event.data.get("ok"):
                                raise EmpError(str(event.data.get("error")))
                            return await _until_up(directory, machine, program)
        except TimeoutError:
            raise WaitTimeout(
                f"not done within {within_s:g} s", hint="is the reconciler up? see `emp diff`, `emp logs reconcile`"
            ) from None


async def _until_up(directory: Path, machine: str, program: str | None) -> None:
    """Until nothing of what was restarted differs from what is desired."""
    from emp_orch.control.inspect import difference
    from emp_orch.layout import Layout

    while True:
        found = await difference(Layout(directory))
        mine = [d.drift for d in found.drift if d.drift.machine_id == machine]
        if not [d for d in mine if program is None or d.program in (None, program)]:
            return
        await asyncio.sleep(0.2)
