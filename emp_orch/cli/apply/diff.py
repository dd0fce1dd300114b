"""`emp diff`: what differs between the generation in force and the world; and what an apply would do, in a file.

It cannot write to Redis.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.options import refuse_stdin
from emp_orch.errors import EmpError, Exit, UsageError
from emp_orch.fleet.policy.leader_silence import SILENT_MIN_MS
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.control.status.inspect import Difference


# Programs whose last words are printed.
MAX_SAID = 5


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=None, required=False)
@click.option(
    "--plan-out", type=click.Path(path_type=Path, dir_okay=False), help="Write what `emp apply FILE` would do."
)
@click.option("--prune", is_flag=True, help="With --plan-out: as `emp apply --prune`.")
@click.option("--allow-empty", is_flag=True, help="With --plan-out: as `emp apply --allow-empty`.")
@click.option("--json", "as_json", is_flag=True, help="Print drift and plan as JSON.")
@click.pass_obj
def diff(
    directory: Path, file: Path | None, plan_out: Path | None, prune: bool, allow_empty: bool, as_json: bool
) -> None:
    """Show what differs from the generation in force, and what would remove the difference.

    With --plan-out show instead what `emp apply FILE` [emp.yaml] would do now, and write it down for
    `emp apply --plan`.

    Exit: 0 in sync, 1 differs, 2 trouble, 3 Redis out of reach.
    """
    if plan_out is None and (file is not None or prune or allow_empty):
        raise UsageError(
            "FILE, --prune and --allow-empty are for --plan-out", hint="emp diff compares what was applied"
        )
    refuse_stdin(file, "emp diff --plan-out")
    try:
        if plan_out is not None:
            asyncio.run(_plan_out(directory, file or Path("emp.yaml"), plan_out, prune, allow_empty, as_json))
        else:
            _diff(directory, as_json)
    except EmpError as e:
        e.exit_code = Exit.UNREACHABLE if e.exit_code is Exit.UNREACHABLE else Exit.USAGE
        raise


async def _plan_out(directory: Path, file: Path, out: Path, prune: bool, allow_empty: bool, as_json: bool) -> None:
    from emp_orch.control.apply import planfile
    from emp_orch.control.apply.preview import preview
    from emp_orch.control.apply.proposal import read_proposal

    path = directory / file
    layout, proposal = read_proposal(path, os.environ)
    seen = await preview(layout, proposal, prune=prune, allow_empty=allow_empty)
    plan = await planfile.planned(layout, path, proposal, seen, prune=prune, allow_empty=allow_empty)
    planfile.write(directory / out, plan)
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json(plan)
    else:
        click.echo("\n".join(one_line(line) for line in plan.plan))
        named = "" if file == Path("emp.yaml") else f"{file} "
        click.echo(f"\nwritten to {out}; to do just this: emp apply {named}--plan {out}")
    sys.exit(0 if seen.nothing else 1)


def _diff(directory: Path, as_json: bool) -> None:
    from emp_orch.control.status.inspect import difference
    from emp_orch.layout import Layout

    found = asyncio.run(difference(Layout(directory)))
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
        "overrides": msgspec.to_builtins(found.overrides),
        "breaker": msgspec.to_builtins(found.breaker),
        "rollout": msgspec.to_builtins(found.rollout),
    }


def _last_words(found: Difference) -> None:
    """What programs in trouble said last, where a cause has not all of it; one line for those that said the same."""
    from emp_orch.cli.output.exit_text import set_off
    from emp_orch.fleet.drift.exits import words_of

    said: dict[tuple[str, ...], list[str]] = {}
    for item in found.drift:
        seen = found.observed.machines.get(item.drift.machine_id)
        if words := words_of(seen.report if seen else None, item.drift.program):
            said.setdefault(words, []).append(f"{item.drift.program} on {item.drift.machine_id}")
    for words, who in list(said.items())[:MAX_SAID]:
        more = f" and {len(who) - 1} more" if len(who) > 1 else ""
        click.echo(f"\nlast words of {who[0]}{more}")
        click.echo("\n".join(set_off(words)))


def _print(found: Difference) -> None:
    from emp_orch.cli.output.holds import held_lines, waits
    from emp_orch.cli.output.text import age, table

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
                i.drift.origin,
                i.drift.cause,
            )
            for i in found.drift
        ]
        click.echo(table(("MACHINE", "KIND", "SUBJECT", "DESIRED → OBSERVED", "FOR", "WHERE", "CAUSE"), rows))
        _last_words(found)
    if found.plan:
        click.echo("\nplan")
        for number, operation in enumerate(found.plan, start=1):
            click.echo(f"  {number}. {one_line(operation.text)}")
    held = [d for d in found.drift if d.hold is not None]
    if held:
        click.echo("\nwaits")
        for d in held:
            again = "" if d.next_ms is None else f", next in {age(d.next_ms)}"
            click.echo(f"  {d.drift.subject}: {one_line(waits(d))}{again}")
    if lines := held_lines(found):
        click.echo()
        for word, line in lines:
            click.echo(f"{word:<7} {one_line(line)}")
    if found.status_age_ms is None or found.status_age_ms > SILENT_MIN_MS:
        click.echo("\nno reconciler is at work: see `emp status`, `emp logs reconcile`")
