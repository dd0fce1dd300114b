"""`emp diff`: what differs between emp.yaml's generation in force and the world. It cannot write."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.errors import EmpError, Exit
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.control.inspect import Difference


# Longer without a tick than any interval makes sense for.
SILENT_MS = 10_000


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print drift and plan as JSON.")
@click.pass_obj
def diff(directory: Path, as_json: bool) -> None:
    """Show what differs from the generation in force, and what would remove the difference.

    Exit: 0 in sync, 1 differs, 2 trouble, 3 Redis out of reach.
    """
    from emp_orch.control.inspect import difference
    from emp_orch.layout import Layout

    try:
        found = asyncio.run(difference(Layout(directory)))
    except EmpError as e:
        e.exit_code = Exit.UNREACHABLE if e.exit_code is Exit.UNREACHABLE else Exit.USAGE
        raise
    if as_json:
        import json

        click.echo(json.dumps(_as_json(found), indent=2))
    else:
        _print(found)
    sys.exit(1 if found.drift else 0)


def _as_json(found: Difference) -> dict[str, Any]:
    import msgspec

    return {
        "fleet": found.fleet,
        "generation": found.generation,
        "in_sync": not found.drift,
        "drift": [msgspec.to_builtins(item) for item in found.drift],
        "plan": [operation.text for operation in found.plan],
        "reconciler": {"leader": found.leader, "age_ms": found.status_age_ms, "paused": found.paused},
    }


def _print(found: Difference) -> None:
    from emp_orch.cli.text import age, table

    if not found.drift:
        click.echo(f"in sync: {found.fleet} is as generation {found.generation} says")
    else:
        word = "difference" if len(found.drift) == 1 else "differences"
        click.echo(f"{len(found.drift)} {word} from generation {found.generation} of {found.fleet}")
        rows = [
            (
                i.drift.machine_id,
                i.drift.kind,
                i.drift.subject,
                f"{i.drift.desired} → {i.drift.observed}",
                age(i.age_ms),
                i.drift.cause,
                i.drift.origin,
            )
            for i in found.drift
        ]
        click.echo(table(("MACHINE", "KIND", "SUBJECT", "DESIRED → OBSERVED", "FOR", "CAUSE", "WHERE"), rows))
    if found.plan:
        click.echo("\nplan")
        for number, operation in enumerate(found.plan, start=1):
            click.echo(f"  {number}. {one_line(operation.text)}")
    if found.paused:
        click.echo(f"\nthe reconciler is paused: {one_line(found.paused)}")
    elif found.status_age_ms is None or found.status_age_ms > SILENT_MS:
        click.echo("\nno reconciler is at work: see `emp status`, `emp logs reconcile`")
