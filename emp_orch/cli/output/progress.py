"""Progress on stderr: one live line on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType

import click

from emp_orch.plaintext import many_lines, one_line, shown_json

# Where there is no terminal, a line this often at most: a log wants milestones, not frames.
QUIET_S = 2.0
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def colour(stream: object = None) -> bool:
    """Whether to colour what goes to `stream` (stdout unless said): on a terminal only, never with NO_COLOR."""
    target = stream or sys.stdout
    return bool(getattr(target, "isatty", lambda: False)()) and "NO_COLOR" not in os.environ


def _width() -> int:
    """Columns of the terminal that stderr is; stdout may be a pipe. One that nobody told its size says 0."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(20, columns or shutil.get_terminal_size().columns)


class Progress:
    """Shows the stage that runs and what it waits for. Use as a context manager, so that the line is cleared."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._began: float | None = None  # the first stage: time spent on questions is not counted
        self._last = ""
        self._printed = -QUIET_S
        self._frame = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def stage(self, text: str) -> None:
        """Show `text` as what goes on now; other people's words are safe in it."""
        text = one_line(text)
        self._frame += 1
        self._began = self._began or time.monotonic()
        elapsed_s = time.monotonic() - self._began
        if self._live:
            self._clear()
            frame = _FRAMES[self._frame % len(_FRAMES)]
            line = f"{frame} {elapsed_s:5.1f}s  {text}"
            sys.stderr.write(line[: _width() - 1])
            sys.stderr.flush()
        elif text != self._last and time.monotonic() - self._printed >= QUIET_S:
            self._printed = time.monotonic()
            sys.stderr.write(f"{elapsed_s:6.1f}s  {text}\n")
            sys.stderr.flush()
        self._last = text

    def line(self, text: str = "", *, err: bool = True, bold: bool = False) -> None:
        """Print whole lines, above the live one; other people's words are safe in them."""
        self._clear()
        shown = many_lines(text)
        coloured = colour(sys.stderr if err else sys.stdout)
        click.echo(click.style(shown, bold=True) if bold and coloured else shown, err=err, color=coloured)

    def document(self, text: str) -> None:
        """Print JSON on stdout, above the live line."""
        self._clear()
        click.echo(shown_json(text))

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
