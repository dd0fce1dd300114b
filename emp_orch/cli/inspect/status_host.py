"""`emp status --host`: the fleets of this user on this host, wherever their folders are."""

from __future__ import annotations

import time

import click


def show(*, as_json: bool) -> int:
    """Print them; the exit code: 0, or 1 when none runs."""
    from emp_orch.control.host.hosted import hosted

    found = hosted()
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps(msgspec.to_builtins(found, enc_hook=str), indent=2))
    elif not found:
        click.echo("no fleet of this user runs on this host")
    else:
        from emp_orch.cli.output.text import age, table

        now_ms = time.time() * 1000
        rows = [
            (
                f.name or "-",
                f.id,
                str(len(f.machines)),
                str(f.processes),
                age(int(now_ms - f.since_ms)),
                str(f.folder) if f.folder else f"{f.applied_in} (gone)",
            )
            for f in found
        ]
        click.echo(table(("FLEET", "ID", "MACHINES", "PROCESSES", "UP", "FOLDER"), rows))
        click.echo("emp down --all-of NAME stops one: by its name, id or folder")
    return 0 if found else 1
