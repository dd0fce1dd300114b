"""`emp history`: the generations that are kept, and what each changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.store.fleet.generations import Generation

    Told = tuple[Generation, tuple[str, ...]]

# What one row says of its changes; --json has all.
_SHOWN = 2


@click.command()
@click.option(
    "-n", "--limit", type=click.IntRange(1, 50), default=20, show_default=True, help="How many, newest first."
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.pass_obj
def history(directory: Path, limit: int, as_json: bool) -> None:
    """Show the generations, newest first: when, who, why, and what each changed. The last 50 are kept.

    Exit: 0 done, 1 it did not work, 2 nothing was applied here, 3 Redis out of reach.
    """
    told = asyncio.run(_read(directory, limit))
    if as_json:
        from emp_orch.cli.jobs.access import print_json

        print_json([_as_json(t, current=n == 0) for n, t in enumerate(told)])
    else:
        _print(told)


async def _read(directory: Path, limit: int) -> list[Told]:
    from emp_orch.control.apply.earlier_generations import reading
    from emp_orch.layout import Layout
    from emp_orch.store.fleet.generations import list_generations, with_changes
    from emp_orch.store.redis.keys import Keys

    async with reading(Layout(directory)) as (settings, r):
        # One more, so that the oldest shown can be compared with the one before it.
        kept = await list_generations(r, Keys(settings.prefix), settings.fleet, limit + 1)
    return with_changes(kept)[:limit]


def _as_json(told: Told, *, current: bool) -> dict[str, Any]:
    from emp_orch.web.times import rfc3339

    generation, changes = told
    machines = generation.fleet.machines
    return {
        "number": generation.number,
        "in_force": current,
        "applied_at": rfc3339(generation.at_ms),
        "by": generation.by,
        "why": generation.why,
        "digest": generation.digest,
        "machines": [m.id for m in machines],
        "num_gpus": sum(m.num_gpus for m in machines),
        "changes": list(changes),
    }


def _print(told: list[Told]) -> None:
    from emp_orch.cli.jobs.access import terminal_width
    from emp_orch.cli.output.text import table

    if not told:
        click.echo("no generation was applied yet")
        return
    head = ("GEN", "WHEN", "BY", "WHY", "DIGEST", "MACHINES", "SLOTS", "CHANGED")
    rows = [_row(g, current=n == 0) for n, (g, _) in enumerate(told)]
    changes = [_short(g, told_of_it) for g, told_of_it in told]
    whole = table(head, [(*row, text) for row, text in zip(rows, changes, strict=True)])
    if max(map(len, whole.split("\n"))) <= terminal_width():
        click.echo(whole)
        return
    # What changed is what one looks for: where there is no room beside the rest, it gets a line of its own.
    top, *lines = table(head[:-1], rows).split("\n")
    click.echo(top)
    for line, text in zip(lines, changes, strict=True):
        click.echo(f"{line}\n     {one_line(text)}")


def _row(g: Generation, *, current: bool) -> tuple[str, ...]:
    return (
        f"{g.number} ←" if current else str(g.number),
        _when(g.at_ms),
        g.by or "-",
        g.why or "-",
        g.digest[:8],
        str(len(g.fleet.machines)),
        str(sum(m.num_gpus for m in g.fleet.machines)),
    )


def _short(generation: Generation, changes: tuple[str, ...]) -> str:
    more = f"; {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    flags = "--prune" if generation.prune else ""
    return "; ".join(filter(None, (*changes[:_SHOWN], flags))) + more or "-"


def _when(at_ms: int) -> str:
    """By this host's clock and zone; what is no time at all, as it stands."""
    from datetime import datetime

    try:
        return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return str(at_ms)
