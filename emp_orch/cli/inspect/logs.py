"""`emp logs`: every component's log, merged in time order; follow them, clear them."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.output.complete import log_names
from emp_orch.errors import EmpError, UsageError
from emp_orch.plaintext import without_controls

if TYPE_CHECKING:
    from emp_orch.control.logs.files import LogFile
    from emp_orch.control.logs.read import Line
    from emp_orch.layout import Layout

MAX_LINES = 100_000
_PALETTE = (
    "cyan",
    "green",
    "yellow",
    "magenta",
    "blue",
    "bright_cyan",
    "bright_green",
    "bright_magenta",
    "bright_blue",
)


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]…", shell_complete=log_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, MAX_LINES), default=200, show_default=True, help="How many past lines."
)
@click.option("--list", "listing", is_flag=True, help="List the components and their files.")
@click.option("--clear", is_flag=True, help="Empty the log files; what runs goes on writing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def logs(
    directory: Path, components: tuple[str, ...], follow: bool, lines: int, listing: bool, clear: bool, as_json: bool
) -> None:
    """Show the logs of COMPONENTs, or of all but the event stream, in time order.

    COMPONENT is redis, api, monitor, reconcile, eventlog, control, monitorEventStream, a machine (its supervisord,
    agent and programs), or a program of one: MACHINE PROGRAM, MACHINE/PROGRAM, or as any other command prints it.
    Those of a machine in a container of another Docker host are read there.
    """
    from emp_orch.cli.inspect.logs_elsewhere import machine_elsewhere, show
    from emp_orch.cli.output import names
    from emp_orch.control.logs.files import component_names, log_files, matches, resolve
    from emp_orch.layout import Layout

    if listing + clear + follow > 1:
        raise UsageError("--list, --clear and --follow exclude each other")
    layout = Layout(directory)
    files = log_files(layout)
    if not files and not layout.state.exists():
        raise EmpError(f"there are no logs in {layout.logs}: no fleet was applied in {layout.root}", hint="emp apply")
    known = component_names(files)
    components, said = names.components(layout, components, known), components
    if components and (machine := machine_elsewhere(layout, components, known)):
        flags = {"--follow": follow, "--list": listing, "--clear": clear, "--json": as_json}
        options = ["--lines", str(lines), *(flag for flag, given in flags.items() if given)]
        show(layout, machine, components[0], options)
    wanted = resolve(components, files, set(components).difference(said))
    if not (follow or clear or listing or any(matches(f, wanted) for f in files)):
        what = f"log of {', '.join(wanted)}" if wanted else "log"
        raise EmpError(
            f"there is no {what} in {layout.logs}: it never ran, or somebody removed the file",
            hint="while the fleet runs, its logs come back by themselves within a second; see `emp logs --list`",
        )
    if listing:
        _list(files, wanted, as_json)
    elif clear:
        _clear(layout, files, wanted, as_json)
    else:
        _show(layout, wanted, lines, follow, as_json)


def _show(layout: Layout, wanted: tuple[str, ...], count: int, follow: bool, as_json: bool) -> None:
    from emp_orch.control.logs.follow import Logs

    shown = Logs(layout, wanted)
    writer = _Writer(layout, wanted, as_json)
    try:
        writer.write(shown.last(count, unfinished=not follow))
        if not as_json:
            _tell_end(layout, wanted)
        if not follow:
            return
        for batch in shown.follow():
            writer.write(batch)
    except KeyboardInterrupt:
        return
    except BrokenPipeError:
        # Who reads us has gone (`emp logs | head`): nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        shown.close()


def _tell_end(layout: Layout, wanted: tuple[str, ...]) -> None:
    """Of the one program that is shown and does not run: how it ended. Its own log need not say anything."""
    from emp_orch.fleet.drift.exits import told
    from emp_orch.fleet.names import LOG_PREFIX
    from emp_orch.procident import alive, recorded
    from emp_orch.runtimes.process import exit_files

    machine, _, program = wanted[0].removeprefix(LOG_PREFIX).partition("/") if len(wanted) == 1 else ("", "", "")
    home = layout.machine(machine)
    if not program or ((who := recorded(home / "run" / program)) is not None and alive(who)):
        return
    if (end := exit_files.read(home, program)) is not None:
        sys.stdout.flush()
        click.echo(f"emp: {program} does not run: it {told(end)}", err=True)


class _Writer:
    """Writes lines with their component before them; with one log only, the bare lines."""

    def __init__(self, layout: Layout, wanted: tuple[str, ...], as_json: bool) -> None:
        from emp_orch.cli.output.progress import colour
        from emp_orch.control.logs.files import log_files, matches

        names = [f.name for f in log_files(layout) if matches(f, wanted)]
        self._bare = len(wanted) == 1 and all(n == wanted[0] for n in names)
        self._width = max((len(n) for n in names), default=0)
        self._colour = colour()
        self._json = as_json

    def write(self, lines: Iterable[Line]) -> None:
        text = "".join(f"{self._format(line)}\n" for line in lines)
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _format(self, line: Line) -> str:
        if self._json:
            return json_line(line)
        text = cleaned(line.text)
        if self._bare:
            return text
        self._width = max(self._width, len(line.name))
        return prefix(line.name, self._width, colour=self._colour) + text


def prefix(name: str, width: int, *, colour: bool) -> str:
    """`name | `; a component keeps its colour from call to call."""
    text = f"{name:<{width}} | "
    return click.style(text, fg=_PALETTE[zlib.crc32(name.encode()) % len(_PALETTE)]) if colour else text


def cleaned(text: str) -> str:
    """A log line fit for a terminal, whose business its escapes are not; of a progress bar its last state."""
    return without_controls(text.rstrip("\r").rpartition("\r")[2])


def json_line(line: Line) -> str:
    import msgspec

    from emp_orch.web.times import rfc3339

    return msgspec.json.encode(
        {"component": line.name, "at": rfc3339(int(line.at * 1000)), "line": cleaned(line.text)}
    ).decode()


def _list(files: tuple[LogFile, ...], wanted: tuple[str, ...], as_json: bool) -> None:
    import json

    from emp_orch.cli.output.text import table
    from emp_orch.control.logs.files import matches, rotated

    rows: list[dict[str, Any]] = [
        {"component": f.name, "file": str(f.path), "bytes": f.path.stat().st_size, "rotated": len(rotated(f.path))}
        for f in files
        if not wanted or matches(f, wanted)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        lines = [(r["component"], size(r["bytes"]), str(r["rotated"] or "-"), r["file"]) for r in rows]
        click.echo(table(("COMPONENT", "SIZE", "OLDER", "FILE"), lines))


def size(count: int) -> str:
    """Bytes as a person says it: 12 B, 3.4 KiB, 20.0 MiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _clear(layout: Layout, files: tuple[LogFile, ...], wanted: tuple[str, ...], as_json: bool) -> None:
    import json

    import msgspec

    from emp_orch.control.logs.files import clear, matches

    done = clear(f for f in files if not wanted or matches(f, wanted))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done)))
    else:
        older = f", removed {done.removed} older file{'' if done.removed == 1 else 's'}" if done.removed else ""
        word = "log" if len(done.files) == 1 else "logs"
        click.echo(f"cleared {len(done.files)} {word} ({size(done.freed)}){older} in {layout.logs}")
    if done.failed:
        raise EmpError("could not clear " + "; ".join(done.failed), hint="run as the user who applied this fleet")
