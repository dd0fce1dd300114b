"""`emp down`: stop a fleet, this folder's or any of this user on this host."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.progress import Progress
from emp_orch.errors import EmpError, Exit, UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.drift.leftovers import Left
    from emp_orch.fleet.model.fleet import MachineId
    from emp_orch.layout import Layout


@click.command()
@click.option("--all-of", metavar="NAME", help="Not this folder's fleet, but the one of that name, id or folder.")
@click.option("--volumes", is_flag=True, help="Remove its containers' volumes too: logs, caches, what was installed.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.pass_obj
def down(directory: Path, all_of: str | None, volumes: bool, as_json: bool) -> None:
    """Stop this folder's fleet: the boxes of its pools, its machines, then its control plane, and nothing else.

    Boxes that an engine started are given back to it, since they cost as long as they run. Where it does not take them
    back the rest is stopped, and the end is 1 with its words. Boxes that joined by themselves run on.

    Data stays: `emp start` brings the same generation and jobs up again, `emp apply` what emp.yaml says by then.
    `emp stop` is the same command. What runs is known by its marks, also when the folder was moved, or lost .emp/.
    Ctrl-C leaves running what is not stopped yet, and says what that is.

    With --all-of NAME a fleet is stopped from anywhere on this host; `emp status --host` shows them. One whose folder
    is gone is known on this host's Docker Engine too.

    Exit: 0 done, 1 something still runs, 2 there is nothing to stop here.
    """
    if all_of is not None:
        _named(directory, all_of, volumes, as_json)
    else:
        _here(directory, volumes, as_json)


def _here(directory: Path, volumes: bool, as_json: bool) -> None:
    from emp_orch.control.apply.down import bring_down
    from emp_orch.control.host.leftovers import LeftBehind
    from emp_orch.host import ownership
    from emp_orch.layout import Layout

    layout = Layout(directory)
    ownership.refuse_copies(layout.root)
    if not layout.control.is_dir() and not ownership.look(layout.root).running:
        raise UsageError(
            f"no fleet was applied in {layout.root}", hint="run `emp apply` here, or name its folder: emp -C DIR down"
        )
    behind = LeftBehind(layout)
    boxes = _boxes(layout)
    with Progress() as progress:
        stopped = _to_its_end(bring_down(layout, progress.stage, volumes=volumes), layout)
    if layout.state.is_dir():
        data = f"its data stays in {layout.state}, and emp start brings it up again"
    else:
        data = f"its data was in {layout.state}, which is gone"
    _tell(f"the fleet is down ({_names(stopped)}); {data}", stopped, behind.found(), as_json, boxes)


def _named(directory: Path, name: str, volumes: bool, as_json: bool) -> None:
    from emp_orch.control.apply.down import bring_down_fleet
    from emp_orch.control.host.hosted import hosted, named
    from emp_orch.control.host.leftovers import LeftBehind
    from emp_orch.layout import Layout

    name = str(directory / name) if "/" in name or name in (".", "..") else name
    try:
        fleet = named(name, hosted())
    except UsageError:
        if not _abandoned(name, volumes, as_json):
            raise
        return
    layout = None if fleet.folder is None else Layout(fleet.folder)
    behind = None if layout is None else LeftBehind(layout)
    with Progress() as progress:
        stopped = _to_its_end(bring_down_fleet(fleet, progress.stage, volumes=volumes), layout)
    left = () if behind is None else behind.found()
    boxes = [] if layout is None else _boxes(layout)
    _tell(f"fleet {fleet.words} is down ({_names(stopped)})", stopped, left, as_json, boxes)


def _boxes(layout: Layout) -> list[str]:
    """Machines and pools that emp can neither start nor stop: what runs there runs on."""
    from emp_orch.control.host.generation import kept
    from emp_orch.fleet.model.pools import JOIN

    with suppress(EmpError):
        generation = kept(layout)
        if generation is None:
            return []
        pools = [f"pool {name}" for name, pool in generation.fleet.pools.items() if pool.provider == JOIN]
        return [*(str(m.id) for m in generation.fleet.machines if not m.traits.started), *pools]
    return []


def _abandoned(name: str, volumes: bool, as_json: bool) -> bool:
    """End what only the engine knows of a fleet whose folder is gone; False when it knows of none."""
    from emp_orch.control.host import abandoned
    from emp_orch.errors import Unreachable
    from emp_orch.fleet.model.fleet import MachineId

    try:
        found = abandoned.abandoned(name)
    except Unreachable:
        return False
    if found is None:
        return False
    ran, removed = abandoned.end(*found, volumes=volumes)
    data = f"; removed: {', '.join(removed)}" if removed else "" if volumes else "; its volumes stay (--volumes)"
    stopped = [MachineId(machine_id) for machine_id in ran]
    _tell(f"fleet {found[1].words} is down ({_names(stopped)}){data}", stopped, (), as_json, ())
    return True


def _to_its_end(ending: Coroutine[Any, Any, list[MachineId]], layout: Layout | None) -> list[MachineId]:
    """What `ending` returns. When a person cuts it short, say what runs on, and leave with exit 1."""
    try:
        return asyncio.run(ending)
    except KeyboardInterrupt:
        click.echo(f"emp: stopped half way; {_left(layout)}", err=True)
        click.echo("     `emp down` again goes on", err=True)
        sys.stderr.flush()
        os._exit(Exit.FAILED)  # threads still wait for supervisords, perhaps as long as a drain


def _left(layout: Layout | None) -> str:
    from emp_orch.control.apply.down import still_running

    left = asyncio.run(still_running(layout)) if layout is not None else ["see `emp status --host`"]
    return f"still running: {', '.join(left)}" if left else "nothing runs any more"


def _names(stopped: list[MachineId]) -> str:
    return ", ".join(stopped) or "no machine ran"


def _tell(words: str, stopped: list[MachineId], left: Sequence[Left], as_json: bool, boxes: Sequence[str]) -> None:
    if as_json:
        import json

        import msgspec

        click.echo(json.dumps({"stopped": stopped, "ended": msgspec.to_builtins(left), "runs_on": list(boxes)}))
        return
    from emp_orch.fleet.drift.leftovers import told

    run_on = f"emp does not stop boxes of others, which run on where they are: {', '.join(boxes)}" if boxes else ""
    click.echo("\n  ".join(filter(None, (words, told(left, machines=True), run_on))))
