"""`python -m bench.containers`: run, print the table, write the JSON."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import click
import msgspec

from bench.containers.run import COMPOSE, EMP, EMP_ALL, Plan, Took, run
from bench.queue.tables import table
from bench.reconcile.children import Failed
from emp_orch.images import MACHINE_IMAGE


@click.command()
@click.option("--image", default=MACHINE_IMAGE, show_default=True, help="emp's machine image; `emp images build`.")
@click.option("--machines", type=click.IntRange(1, 50), default=Plan().machines, show_default=True)
@click.option("--gpus", type=click.IntRange(1, 64), default=Plan().gpus, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 99), default=Plan().rounds, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(image: str, machines: int, gpus: int, rounds: int, json_file: Path | None) -> None:
    """How soon a fleet of containers is ready, by emp and by Docker Compose alone. The engine is DOCKER_HOST's.

    Exit 1: it could not be measured.
    """
    plan = Plan(machines=machines, gpus=gpus, rounds=rounds)
    try:
        found = run(plan, image, lambda text: click.echo(text, err=True))
    except Failed as e:
        click.echo(f"not measured: {e}", err=True)
        sys.exit(1)
    click.echo(f"{machines} containers of {gpus} workers, {rounds} rounds, medians\n")
    click.echo(_table(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode({"plan": plan, "turns": found})))


def _table(found: list[Took]) -> str:
    def median(what: str, name: str) -> float:
        return float(statistics.median(getattr(t, name) for t in found if t.what == what))

    rows = []
    for what in (EMP_ALL, EMP, COMPOSE):
        returned, idle = median(what, "returned_s"), median(what, "idle_s")
        cells = [f"{returned:.1f}", f"{returned / median(COMPOSE, 'returned_s'):.2f}"]
        rows.append([what, *cells, f"{idle:.1f}", f"{idle / median(COMPOSE, 'idle_s'):.2f}"])
    return table(["command", "returns after s", "of Compose", "all workers idle after s", "of Compose"], rows)


if __name__ == "__main__":
    main()
