"""Progress on stderr: one live line on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import time
from types import TracebackType

import click

# Where there is no terminal, a line this often at most: a log wants milestones, not frames.
QUIET_S = 2.0
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def colour(stream: object = None) -> bool:
    """Whether to colour what goes to `stream` (stdout unless said): on a terminal only, never with NO_COLOR."""
    target = stream or sys.stdout
    return bool(getattr(target, "isatty", lambda: False)()) and "NO_COLOR" not in os.environ


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
        """Show `text` as what goes on now."""
        self._frame += 1
        self._began = self._began or time.monotonic()
        elapsed_s = time.monotonic() - self._began
        if self._live:
            self._clear()
            width = max(20, shutil.get_terminal_size().columns)
            frame = _FRAMES[self._frame % len(_FRAMES)]
            line = f"{frame} {elapsed_s:5.1f}s  {text}"
            sys.stderr.write(line[: width - 1])
            sys.stderr.flush()
        elif text != self._last and time.monotonic() - self._printed >= QUIET_S:
            self._printed = time.monotonic()
            sys.stderr.write(f"{elapsed_s:6.1f}s  {text}\n")
            sys.stderr.flush()
        self._last = text

    def line(self, text: str = "", *, err: bool = True) -> None:
        """Print a whole line, above the live one."""
        self._clear()
        click.echo(text, err=err, color=colour(sys.stderr if err else sys.stdout))

    def _clear(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
