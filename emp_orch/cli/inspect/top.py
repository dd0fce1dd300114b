"""`emp top`: what each machine and each of its programs uses, live on a terminal."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.complete import names, programs
from emp_orch.cli.output.options import Duration
from emp_orch.errors import Exit, UsageError

if TYPE_CHECKING:
    from emp_orch.control.status.usage import MachineUse, ProgramUse, Watch

INTERVAL_S = 2.0
# Between the two looks that the first answer needs.
FIRST_S = 1.0
HEAD = ("MACHINE", "WHERE", "CPU %", "MEMORY", "OF", "PROCESSES", "")

Show = Callable[[Sequence["MachineUse"]], None]


@click.command()
@click.argument("machine", required=False, shell_complete=names)
@click.argument("program", required=False, shell_complete=programs)
@click.option("-1", "--once", is_flag=True, help="One snapshot; so it is where stdout is no terminal.")
@click.option("-n", "--count", type=click.IntRange(1, 1_000_000), metavar="N", help="N snapshots, one after another.")
@click.option(
    "-i",
    "--interval",
    type=Duration(min=0.2, max=3600),
    default=INTERVAL_S,
    show_default=True,
    help="How long between two, in seconds or as 500ms, 2s.",
)
@click.option(
    "--sort", type=click.Choice(["cpu", "memory", "name"]), default="cpu", show_default=True, help="What comes first."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with -n, a document a line.")
@click.pass_obj
def top(
    directory: Path,
    machine: str | None,
    program: str | None,
    once: bool,
    count: int | None,
    interval: float,
    sort: str,
    as_json: bool,
) -> None:
    """Show what every machine, MACHINE, or PROGRAM on it uses of processor and memory; of machines all programs too.

    CPU is in percent of one core. Memory of programs is resident, and what several share counts for each, so also in
    the sum of a machine of processes; a container's is the engine's figure, without what the kernel could drop. OF is
    the limit of the container, else the memory of its host. A box that joined by itself tells no such figures.

    Exit: 0; with MACHINE, 1 when it cannot be read, 3 when its Docker host is away.
    """
    from emp_orch.cli.output.names import named
    from emp_orch.control.status.usage import Watch, by_use
    from emp_orch.layout import Layout

    if once and count is not None:
        raise UsageError("--once and --count exclude each other")
    if machine is not None:
        name = named(directory, machine, program)
        machine, program = name.machine, name.program
    live = sys.stdout.isatty() and not (once or as_json or count)
    watch = Watch(Layout(directory), machine)
    last: Sequence[MachineUse] = ()

    async def run(show: Show) -> None:
        nonlocal last
        async for found in _snapshots(watch, None if live else count or 1, interval):
            last = _only(by_use(found, sort), program)
            show(last)

    screen, show = _live() if live else (nullcontext(), _json(count) if as_json else _text)
    try:
        with screen:
            asyncio.run(run(show))
    except KeyboardInterrupt:
        return
    if machine is not None and last and last[0].memory is None and not last[0].own_box:
        sys.exit(Exit.UNREACHABLE if last[0].away else Exit.FAILED)


def _only(found: Sequence[MachineUse], program: str | None) -> Sequence[MachineUse]:
    """Of each machine only that program; all of them without one."""
    if program is None:
        return found
    import msgspec

    return [msgspec.structs.replace(m, programs=tuple(p for p in m.programs if p.name == program)) for m in found]


async def _snapshots(watch: Watch, count: int | None, interval_s: float) -> AsyncIterator[list[MachineUse]]:
    """`count` snapshots (None: for ever)."""
    await watch.look()
    await asyncio.sleep(min(FIRST_S, interval_s))
    shown = 0
    while True:
        yield await watch.look()
        shown += 1
        if shown == count:
            return
        await asyncio.sleep(interval_s)


def _text(found: Sequence[MachineUse]) -> None:
    click.echo(text(found))


def _json(count: int | None) -> Show:
    import json

    import msgspec

    def show(found: Sequence[MachineUse]) -> None:
        document = {"machines": msgspec.to_builtins(list(found))}
        click.echo(json.dumps(document, indent=None if count else 2))

    return show


def _live() -> tuple[AbstractContextManager[Any], Show]:
    """A screen of its own that shows the newest snapshot, and leaves the terminal as it was."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(markup=False, highlight=False)
    screen = Live(console=console, screen=True, auto_refresh=False, transient=True)

    def show(found: Sequence[MachineUse]) -> None:
        lines = fitted(text(found).splitlines(), console.height)
        screen.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)

    return screen, show


def fitted(lines: list[str], height: int) -> list[str]:
    """As many of `lines` as there is room for, with a last one that says what to do for the others."""
    room = max(2, height - 1)
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"… and {len(lines) - room + 1} more lines: emp top MACHINE, or --once"]


def text(found: Sequence[MachineUse]) -> str:
    """A table: each machine, its programs below it, and why of what could not be read."""
    from emp_orch.cli.output.text import table

    rows = [row for use in found for row in (_machine(use), *map(_program, use.programs))]
    return table(HEAD, rows) if rows else "no machine: emp.yaml names none"


def _machine(use: MachineUse) -> tuple[str, ...]:
    processes = sum(p.processes for p in use.programs)
    of = "-" if not use.limit else f"{_size(use.limit)} ({(use.memory or 0) / use.limit:.0%})"
    cells = (use.machine_id, use.where or "-", _cpu(use.cpu), _size(use.memory), of, str(processes or "-"))
    return (*cells, use.why)


def _program(use: ProgramUse) -> tuple[str, ...]:
    return (f"  {use.name}", f"pid {use.pid}", _cpu(use.cpu), _size(use.memory), "", str(use.processes), "")


def _cpu(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.1f}"


def _size(count: int | None) -> str:
    from emp_orch.cli.inspect.logs import size

    return "-" if count is None else size(count)
