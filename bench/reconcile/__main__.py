"""`python -m bench.reconcile`: run, print the tables, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bench.peers import setup
from bench.queue.processes import end_in_order
from bench.reconcile import plan, tables
from bench.reconcile.aims import verdicts
from bench.reconcile.contenders import PM2
from bench.reconcile.run import Part, run

_PLANS = {"full": plan.FULL, "quick": plan.QUICK, "smoke": plan.SMOKE}


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--size", type=click.Choice(sorted(_PLANS)), default="full", help="smoke shows only that it works.")
@click.option("--quick", is_flag=True, help="The same as --size quick: one round, about two minutes.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds of ticks, instead of the size's own number.")
@click.option("--machines", multiple=True, type=click.IntRange(1, 10_000), help="Only this fleet size; several times.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([str(p) for p in Part]),
    help="Only this part; may be given several times.",
)
@click.option("--no-pm2", is_flag=True, help="Leave out pm2.")
@click.option("--allow-missing", is_flag=True, help="Exit 0 also when pm2 could not be installed.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    size: str,
    quick: bool,
    rounds: int | None,
    machines: tuple[int, ...],
    only: tuple[str, ...],
    no_pm2: bool,
    allow_missing: bool,
    json_file: Path | None,
) -> None:
    """How soon emp heals, beside supervisord alone and pm2, and what its reconciler costs as the fleet grows.

    Exit 1: something could not be measured. Aims that are not met are shown, no error.
    """
    end_in_order()
    how = _PLANS["quick" if quick else size]
    how = msgspec.structs.replace(how, rounds=rounds or how.rounds, machines=machines or how.machines)
    parts = tuple(Part(p) for p in only) or tuple(Part)
    found = run(parts, how, setup.cache_folder(), others=not no_pm2, say=_say)
    judged = verdicts(found)
    click.echo(tables.whole(found, judged))
    if json_file:
        said = [{**msgspec.structs.asdict(v), "judged": v.judged, "met": v.met} for v in judged]
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"report": found, "verdicts": said})))
    sys.exit(1 if [m for m in found.missing if not (allow_missing and m.peer == PM2)] else 0)


if __name__ == "__main__":
    main()
