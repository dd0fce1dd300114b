"""`python -m bench.queue`: run, print the tables, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bench.peers import setup
from bench.queue import peers, plan, tables
from bench.queue.aims import AIMS, judge
from bench.queue.processes import end_in_order
from bench.queue.run import Choice, run

_PLANS = {"full": plan.FULL, "quick": plan.QUICK, "smoke": plan.SMOKE}


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--size", type=click.Choice(sorted(_PLANS)), default="full", help="smoke shows only that it works.")
@click.option("--quick", is_flag=True, help="The same as --size quick: one round, about two minutes.")
@click.option("--rounds", type=click.IntRange(1, 99), help="Rounds, instead of the size's own number.")
@click.option("--only", multiple=True, help="Only this peer; may be given several times.")
@click.option("--no-claims", is_flag=True, help="Leave out emp's claims at a growing backlog.")
@click.option("--no-limits", is_flag=True, help="Leave out redis-benchmark.")
@click.option("--allow-missing", is_flag=True, help="Exit 0 also when a peer could not be installed or failed.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    size: str,
    quick: bool,
    rounds: int | None,
    only: tuple[str, ...],
    no_claims: bool,
    no_limits: bool,
    allow_missing: bool,
    json_file: Path | None,
) -> None:
    """emp's job queue beside arq, saq, taskiq, huey and BullMQ, on one Redis in one run.

    Exit 1: a peer is missing (unless --allow-missing) or emp failed. Aims that are not met are shown, no error.
    """
    end_in_order()
    cache = setup.cache_folder()
    everyone = (*peers.emp(), *peers.others(cache))
    unknown = set(only) - {p.name for p in everyone}
    if unknown:
        raise click.UsageError(f"no peer {', '.join(sorted(unknown))}: {', '.join(p.name for p in everyone)}")
    chosen = tuple(p for p in everyone if not only or p.name in only)
    how = _PLANS["quick" if quick else size]
    if rounds:
        how = msgspec.structs.replace(how, rounds=rounds)
    found = run(Choice(peers=chosen, claims=not no_claims, limits=not no_limits), how, cache, _say)
    python_peers = frozenset(p.name for p in everyone if p.python)
    verdicts = [judge(aim, found.summaries, python_peers) for aim in AIMS]
    click.echo(tables.whole(found, verdicts))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"report": found, "verdicts": verdicts})))
    fatal = found.missing if not allow_missing else [m for m in found.missing if m.peer.startswith(peers.EMP)]
    sys.exit(1 if fatal else 0)


if __name__ == "__main__":
    main()
