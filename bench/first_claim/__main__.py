"""`python -m bench.first_claim`: run, print the table, write the JSON."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import click
import msgspec

from bench.first_claim.run import BY_HAND, EMP, Plan, Took, run
from bench.queue.tables import table
from bench.reconcile.children import Failed
from emp_orch.images import MACHINE_IMAGE


@click.command()
@click.option("--address", required=True, help="Of this host, as boxes of the Swarm reach it.")
@click.option("--image", default=MACHINE_IMAGE, show_default=True, help="emp's machine image; `emp images build`.")
@click.option("--rounds", type=click.IntRange(1, 99), default=5, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(address: str, image: str, rounds: int, json_file: Path | None) -> None:
    """How soon the first member of an empty pool claims a job. DOCKER_HOST's engine manages the Swarm.

    Exit 1: it could not be measured.
    """
    plan = Plan(address=address, image=image, rounds=rounds)
    try:
        found = run(plan, lambda text: click.echo(text, err=True))
    except Failed as e:
        click.echo(f"not measured: {e}", err=True)
        sys.exit(1)
    click.echo(f"{rounds} rounds, medians, least to most\n")
    click.echo(_table(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"plan": plan, "turns": found})))


def _table(found: list[Took]) -> str:
    def values(what: str, name: str) -> list[float]:
        return sorted(getattr(t, name) for t in found if t.what == what)

    rows = []
    for what in (EMP, BY_HAND):
        claims = values(what, "claim_s")
        median, base = statistics.median(claims), statistics.median(values(BY_HAND, "claim_s"))
        command = statistics.median(values(what, "command_s"))
        rows.append(
            [
                what,
                *(f"{median:.2f}", f"{claims[0]:.2f} to {claims[-1]:.2f}", f"{median / base:.2f}"),
                *(f"{command:.2f}", f"{command / base:.2f}", f"{statistics.median(values(what, 'asked_s')):.2f}"),
            ]
        )
    heads = [
        "",
        "claim after s",
        "from, to",
        "ratio",
        "from the command's start s",
        "ratio",
        "after the service was made s",
    ]
    return table(heads, rows)


if __name__ == "__main__":
    main()
