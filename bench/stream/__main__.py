"""`python -m bench.stream`: run, print the tables, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bench.queue.processes import end_in_order
from bench.stream import plan, tables
from bench.stream.run import run

_PLANS = {"full": plan.FULL, "quick": plan.QUICK, "smoke": plan.SMOKE}


def _say(text: str) -> None:
    click.echo(text, err=True)


@click.command()
@click.option("--size", type=click.Choice(sorted(_PLANS)), default="full", help="smoke shows only that it works.")
@click.option("--quick", is_flag=True, help="The same as --size quick: about a minute and a half.")
@click.option("--clients", type=click.IntRange(1, 5_000), help="Instead of the size's own number.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(size: str, quick: bool, clients: int | None, json_file: Path | None) -> None:
    """What the live stream costs and how late it is, beside sending the whole state to each client.

    Exit 1: something could not be measured, or a client missed a change.
    """
    end_in_order()
    how = _PLANS["quick" if quick else size]
    found = run(msgspec.structs.replace(how, clients=clients or how.clients), _say)
    click.echo(tables.whole(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    sys.exit(1 if found.missing or any(s.gaps for s in found.streamed) else 0)


if __name__ == "__main__":
    main()
