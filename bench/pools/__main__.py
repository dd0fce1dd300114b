"""`python -m bench.pools`: run, print the tables, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bench.pools import plan, tables
from bench.pools.run import run
from bench.queue.processes import end_in_order
from bench.reconcile.children import Failed

_PLANS = {"full": plan.FULL, "quick": plan.QUICK, "smoke": plan.SMOKE}


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--size", type=click.Choice(sorted(_PLANS)), default="full", help="smoke shows only that it works.")
@click.option("--quick", is_flag=True, help="The same as --size quick: about three minutes.")
@click.option("--members", type=click.IntRange(2, 5_000), help="Instead of the size's own number.")
@click.option("--jobs", type=click.IntRange(1, 1_000_000), help="Instead of the size's own number.")
@click.option("--churn", type=click.FloatRange(0, 100), help="Percent that join, leave and vanish a minute.")
@click.option("--minutes", type=click.FloatRange(0.1, 1_440), help="How long the churn lasts; the jobs come in it.")
@click.option("--steady", type=click.FloatRange(0, 3_600), help="Seconds of jobs without churn; 0: none.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    size: str,
    quick: bool,
    members: int | None,
    jobs: int | None,
    churn: float | None,
    minutes: float | None,
    steady: float | None,
    json_file: Path | None,
) -> None:
    """A pool whose members join, leave and fall silent while jobs run, and what that costs the control plane.

    Exit 1: a job was lost or ended twice, a box was turned away, or something is left of a member that was forgotten.
    """
    end_in_order()
    given = {
        "members": members,
        "jobs": jobs,
        "churn": None if churn is None else churn / 100,
        "minutes": minutes,
        "steady_s": steady,
    }
    how = msgspec.structs.replace(
        _PLANS["quick" if quick else size], **{name: value for name, value in given.items() if value is not None}
    )
    try:
        found = run(how, _say)
    except Failed as e:
        click.echo(f"bench: {e}", err=True)
        sys.exit(1)
    click.echo(tables.whole(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    sys.exit(0 if found.whole else 1)


if __name__ == "__main__":
    main()
