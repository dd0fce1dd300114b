"""`python -m bench.comfyui`: run, print the table, write the JSON."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from bench.comfyui import run as runs
from bench.comfyui import talks
from bench.comfyui.run import Report
from bench.queue.processes import end_in_order
from bench.queue.tables import table

# API, SSE and artifact beside talking to ComfyUI; and the command in ms.
AIM_RATIO = 2.0
AIM_COMMAND_MS = 120.0


def _tables(report: Report) -> str:
    by = {t.what: t for t in report.took}
    direct = by[talks.DIRECT].p50_ms
    rows = [
        [t.what, f"{len(t.ms):,}", f"{t.p50_ms:,.1f}", f"{t.p95_ms:,.1f}", f"{t.p50_ms / direct:,.2f}"]
        for t in report.took
    ]
    ratio, command = by[talks.STREAM].p50_ms / direct, by[talks.COMMAND].p50_ms
    aims = [
        [f"{talks.STREAM}, beside {talks.DIRECT}", f"≤ {AIM_RATIO:g} ×", f"{ratio:.2f} ×", _met(ratio <= AIM_RATIO)],
        [talks.COMMAND, f"≤ {AIM_COMMAND_MS:g} ms", f"{command:.0f} ms", _met(command <= AIM_COMMAND_MS)],
    ]
    m = report.machine
    load = f"load {m.load_before[0]:.1f} → {m.load_after[0]:.1f}"
    pause = f"{report.plan.pause_ms} ms between two talks"
    where = f"{m.at}: {report.comfyui}, Python {m.python}, {m.cores} cores, {load}, {pause}"
    head = ["a trivial workflow", "runs", "p50 ms", "p95 ms", f"beside {talks.DIRECT}"]
    return "\n\n".join((where, table(head, rows), table(["aim", "aimed", "measured", "met"], aims)))


def _met(met: bool) -> str:
    return "yes" if met else "no"


@click.command()
@click.option("--size", type=click.Choice(["full", "smoke"]), default="full", help="smoke shows only that it works.")
@click.option("--rounds", type=click.IntRange(1, 10_000), help="Instead of the size's own number.")
@click.option("--pause", type=click.IntRange(0, 10_000), default=50, help="Milliseconds between two talks.")
@click.option(
    "--comfyui", type=click.Path(path_type=Path, exists=True), help="A checkout of ComfyUI to run on the CPU."
)
@click.option("--python", type=click.Path(path_type=Path, exists=True), help="Its interpreter, if not its own venv's.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    size: str, rounds: int | None, pause: int, comfyui: Path | None, python: Path | None, json_file: Path | None
) -> None:
    """What a trivial workflow costs through emp, beside a client that talks to the same ComfyUI.

    Without --comfyui the simulation stands in for it. An aim that is not met is shown, and is no error.
    """
    end_in_order()
    plan = runs.SMOKE if size == "smoke" else runs.FULL
    plan = msgspec.structs.replace(plan, rounds=rounds or plan.rounds, pause_ms=pause)
    found = runs.run(plan, comfyui, python, lambda text: click.echo(text, err=True))
    click.echo(_tables(found))
    if json_file:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    sys.exit(0)


if __name__ == "__main__":
    main()
