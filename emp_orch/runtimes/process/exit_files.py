"""The last end of each program of a machine, asked for or not, in files: written by its agent, read by its workers.

So a worker whose service dies knows it at once, and with Redis away. Times are of the host's own clock. A machine of an
earlier version has no such files: then nobody knows, and that is said.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.fleet.model.observed import ProgramEnd

FOLDER = "ends"
# Five lines of two hundred characters are a tenth of it.
MAX_BYTES = 64 * 1024

_decoder = msgspec.json.Decoder(ProgramEnd)


class Asked(Struct, frozen=True, kw_only=True):
    """An end that emp asked for: when, and why."""

    at_ms: int
    why: str


_asked = msgspec.json.Decoder(Asked)


def path_of(machine: Path, program: str) -> Path:
    """`machine`: the machine's folder."""
    return machine / FOLDER / f"{program}.json"


def make(machine: Path) -> None:
    """The folder, 0700. Raises OSError."""
    (machine / FOLDER).mkdir(mode=0o700, exist_ok=True)


def leave(machine: Path, program: str, end: ProgramEnd) -> None:
    """Write it, whole or not at all, for our own user alone. Raises OSError."""
    _write(path_of(machine, program), msgspec.json.encode(end))


def leave_asked(machine: Path, program: str, asked: Asked) -> None:
    """As `leave`, of an end that is asked for now. Raises OSError."""
    _write(path_of(machine, program).with_suffix(".asked"), msgspec.json.encode(asked))


def read_asked(machine: Path, program: str) -> Asked | None:
    """The last end of `program` that was asked for; None when there was none, or nobody left word of it."""
    try:
        with path_of(machine, program).with_suffix(".asked").open("rb") as file:
            return _asked.decode(file.read(MAX_BYTES))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write(path: Path, text: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read(machine: Path, program: str) -> ProgramEnd | None:
    """The last end of `program`; None when none is known, or what is there is not one."""
    try:
        with path_of(machine, program).open("rb") as file:
            return _decoder.decode(file.read(MAX_BYTES))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def forget(machine: Path, program: str) -> None:
    path_of(machine, program).unlink(missing_ok=True)
    path_of(machine, program).with_suffix(".asked").unlink(missing_ok=True)


def known(machine: Path) -> dict[str, ProgramEnd]:
    """All of them, by program."""
    try:
        names = [path.stem for path in (machine / FOLDER).glob("[!.]*.json")]
    except OSError:
        return {}
    return {name: end for name in names if (end := read(machine, name)) is not None}
