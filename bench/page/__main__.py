"""`python -m bench.page`: run, print the tables, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
from playwright.sync_api import Error

from bench.page import plan, tables
from bench.page.run import run
from bench.queue.processes import end_in_order
from bench.reconcile.children import Failed

_PLANS = {"full": plan.FULL, "quick": plan.QUICK, "smoke": plan.SMOKE}


@click.command()
@click.option("--size", type=click.Choice(sorted(_PLANS)), default="full", help="smoke shows only that it works.")
@click.option("--quick", is_flag=True, help="The same as --size quick: under three minutes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(size: str, quick: bool, json_file: Path | None) -> None:
    """How soon the monitor page shows a large fleet, and what it costs while much of it changes.

    Exit 1: the page complained of something on the console.
    """
    end_in_order()
    try:
        found = run(_PLANS["quick" if quick else size], lambda text: click.echo(text, err=True))
    except (Error, Failed) as e:
        raise SystemExit(f"bench: the page could not be measured: {str(e).splitlines()[0]}") from e
    click.echo(tables.whole(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    sys.exit(1 if found.complaints else 0)


if __name__ == "__main__":
    main()
