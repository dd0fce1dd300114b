"""Whether there is room where a fleet writes: logs and outputs fill a disk, and a full one loses jobs."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from emp_orch.errors import EmpError

# With less nothing is started.
NEEDED_BYTES = 256 * 1024**2
NEEDED_FILES = 1000
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
# What a file system gives at once: less may find room in a block that is in use.
_BLOCK = bytes(4096)


def nearest(folder: Path) -> Path:
    """`folder`, or of what is above it the nearest that is there."""
    return next(p for p in (folder, *folder.parents) if p.exists())


def not_written(folder: Path) -> OSError | None:
    """Why nothing more can be written in `folder`, tried; None where something can. Blocks."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
            probe.write(_BLOCK)
    except OSError as e:
        return e
    return None


def full_among(folders: Iterable[Path]) -> Path | None:
    """The first of `folders` that has no room. Blocks."""
    return next((f for f in folders if (e := not_written(f)) is not None and e.errno in NO_ROOM), None)


def refuse_full(*folders: Path) -> None:
    """Raise EmpError naming the first of `folders`, or what there is above it, that is full or cannot be written."""
    for folder in folders:
        there = nearest(folder)
        stat = os.statvfs(there)
        if stat.f_flag & os.ST_RDONLY:
            raise EmpError(
                f"cannot write in {there}: its file system is mounted read-only",
                hint="keep the fleet elsewhere, or look why (`dmesg` tells of a disk that failed)",
            )
        try:
            with tempfile.TemporaryFile(dir=there) as probe:
                probe.write(b"x")
        except OSError as e:
            raise EmpError(f"cannot write in {there}: {e.strerror}", hint="check its owner and permissions") from e
        free = stat.f_bavail * stat.f_frsize
        if free < NEEDED_BYTES:
            raise EmpError(
                f"only {free // 1024**2} MiB free in {there}, {NEEDED_BYTES // 1024**2} MiB needed",
                hint="free some space; `emp logs --clear` empties the logs",
            )
        if stat.f_files and stat.f_favail < NEEDED_FILES:
            raise EmpError(
                f"only {stat.f_favail} files can still be made in {there}, its file system has no inodes left",
                hint="remove files that nobody needs",
            )
