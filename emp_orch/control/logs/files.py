"""A fleet's log files by component. Files are found by listing the logs folder; no path is made of a user's words.

| component | files |
|---|---|
| redis api monitor reconcile eventlog control monitorEventStream | `logs/NAME.log` |
| machine-ID | `logs/machine-ID.log` (its supervisord) and all of `logs/machine-ID/*.log` |
| machine-ID/PROGRAM | `logs/machine-ID/PROGRAM.log` |

Each is followed by its rotated predecessors: NAME.log.1 is younger than NAME.log.2.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from emp_orch.errors import EmpError, UsageError
from emp_orch.layout import Layout

EVENT_STREAM = "monitorEventStream"
CONTROL = ("redis", "api", "monitor", "reconcile", "eventlog", "control", EVENT_STREAM)
MACHINE = "machine-"
SUFFIX = ".log"


class LogFile(Struct, frozen=True, kw_only=True):
    """`name` is how lines of it are marked: a component, or machine-ID/PROGRAM."""

    name: str
    path: Path

    @property
    def machine(self) -> str:
        """The component of the machine it belongs to; empty for the control plane's."""
        return self.name.partition("/")[0] if self.name.startswith(MACHINE) else ""


def log_files(layout: Layout) -> tuple[LogFile, ...]:
    """Every log there is, the control plane's first. Links are left out: they may lead anywhere."""
    found = [LogFile(name=n, path=layout.log(n)) for n in CONTROL if _is_ours(layout.log(n))]
    found += [
        LogFile(name=path.name.removesuffix(SUFFIX), path=path)
        for path in _listing(layout.logs)
        if path.name.startswith(MACHINE) and path.name.endswith(SUFFIX) and _is_ours(path)
    ]
    for folder in _listing(layout.logs):
        if folder.name.startswith(MACHINE) and folder.is_dir() and not folder.is_symlink():
            found += [
                LogFile(name=f"{folder.name}/{path.name.removesuffix(SUFFIX)}", path=path)
                for path in _listing(folder)
                if path.name.endswith(SUFFIX) and _is_ours(path)
            ]
    return tuple(found)


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise EmpError(f"cannot read {folder}: {e.strerror}", hint="check who owns the logs folder") from e


def _is_ours(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def component_names(files: Iterable[LogFile]) -> list[str]:
    """Every name that `emp logs` takes, those without a file yet included."""
    names = list(CONTROL)
    for file in files:
        names += [n for n in (file.machine, file.name) if n and n not in names]
    return names


def matches(file: LogFile, wanted: Sequence[str]) -> bool:
    """Whether `file` belongs to one of the components `wanted`; with none, to all but the event stream."""
    if not wanted:
        return file.name != EVENT_STREAM
    return file.name in wanted or file.machine in wanted


def resolve(asked: Sequence[str], files: Sequence[LogFile], named: Collection[str] = ()) -> tuple[str, ...]:
    """`asked` as component names. A machine may be named by its id alone. `named` are components that are there, also
    while they have no file. Raises UsageError with a did-you-mean.
    """
    names = [*component_names(files), *named]
    found: list[str] = []
    unknown: list[str] = []
    for word in asked:
        name = word if word in names else MACHINE + word
        (found if name in names else unknown).append(name if name in names else word)
    if unknown:
        raise UsageError(
            "\n".join(f"there is no component {word!r}{_near(word, names)}" for word in unknown),
            hint="`emp logs --list` shows them all",
        )
    return tuple(dict.fromkeys(found))


def _near(word: str, names: list[str]) -> str:
    near = difflib.get_close_matches(word, [*names, *(n.removeprefix(MACHINE) for n in names)], n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def rotated(path: Path) -> list[Path]:
    """The older files of one log, youngest first."""
    prefix = f"{path.name}."
    numbered = [
        (int(other.name.removeprefix(prefix)), other)
        for other in _listing(path.parent)
        if other.name.startswith(prefix) and other.name.removeprefix(prefix).isdigit() and _is_ours(other)
    ]
    return [other for _, other in sorted(numbered)]


class Cleared(Struct, frozen=True, kw_only=True):
    """What `clear` did. `failed` are lines that say what could not be emptied, and why."""

    files: tuple[str, ...]
    removed: int
    freed: int
    failed: tuple[str, ...]


def clear(files: Iterable[LogFile]) -> Cleared:
    """Empty `files` in place and remove their rotated predecessors; who writes them goes on writing."""
    names, failed, removed, freed = [], [], 0, 0
    for file in files:
        try:
            freed += _truncate(file.path)
            names.append(file.name)
            for old in rotated(file.path):
                freed += old.lstat().st_size
                old.unlink(missing_ok=True)
                removed += 1
        except OSError as e:
            failed.append(f"{file.name}: {e.strerror}")
    return Cleared(files=tuple(names), removed=removed, freed=freed, failed=tuple(failed))


def _truncate(path: Path) -> int:
    """Empty one regular file; its size before. A link put in its place meanwhile is refused by the kernel."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        was = os.fstat(fd)
        if not stat.S_ISREG(was.st_mode):
            raise OSError(0, "not a regular file")
        os.ftruncate(fd, 0)
        return was.st_size
    finally:
        os.close(fd)
