"""What options take: durations, and an emp.yaml from a file or from standard input."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from emp_orch import units
from emp_orch.errors import UsageError

if TYPE_CHECKING:
    from emp_orch.fleet.model.fleet import Fleet

# Standard input, and the pipe that a shell hands over for <(command), as Linux names what a process holds open.
_HANDED = re.compile(r"-|/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+", re.ASCII)


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Seconds, as a number or as emp.yaml writes it: 500ms, 60s, 5m, 2h, 7d. The value is a float."""

    name = "duration"

    def __init__(self, *, min: float = 0.0, max: float = units.MOST_S) -> None:  # as click's ranges have it
        self._min = min
        self._max = max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            found = units.duration(str(value))
        except ValueError:
            self.fail(f"{value!r} is no duration: write seconds, or 500ms, 60s, 5m, 2h, 7d.", param, ctx)
        if not self._min <= found <= self._max:
            self.fail(f"{value} is not in the range {self._min:g} s to {self._max:g} s.", param, ctx)
        return found


def load_fleet(folder: Path, file: Path | None, *, here: bool = False) -> Fleet:
    """The fleet in FILE [emp.yaml], `-` for standard input, as if it stood in `folder`. Raises ConfigError."""
    from emp_orch import manifest

    if file is None or not is_stream(file):
        return manifest.load(folder / (file or "emp.yaml"), os.environ, here=here)
    try:
        with _handed(str(file)) as stream:
            return manifest.load_stream(stream, folder, os.environ, here=here)
    except OSError as e:
        raise UsageError(f"cannot read {file}: {e.strerror}", hint="name a file, or pipe one in") from e


@contextmanager
def _handed(file: str) -> Iterator[BinaryIO]:
    if file not in ("-", "/dev/stdin"):
        with Path(file).open("rb") as stream:
            yield stream
    elif sys.stdin is None:
        raise UsageError("standard input is closed", hint="name a file, or pipe one in")
    else:
        yield sys.stdin.buffer


def folder_of(folder: Path, file: Path | None) -> Path:
    """The folder that FILE [emp.yaml] stands in, or would."""
    return folder if file is None or is_stream(file) else (folder / file).parent


def is_stream(file: Path | None) -> bool:
    """Whether FILE is what this command was handed open, to be read once."""
    return file is not None and _HANDED.fullmatch(str(file)) is not None


def refuse_stdin(file: Path | None, command: str) -> None:
    """Raise UsageError for a stream where the fleet's folder is that of the file, which is read again later."""
    if is_stream(file):
        raise UsageError(
            f"{command} takes a file: its folder is the fleet's, and it is read again later",
            hint=f"write it down: … > emp.yaml && {command}; `emp validate -` checks standard input",
        )
