"""What a worker package's archive may hold, whoever made it: a plain tar of regular files below emp_orch/."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from emp_orch.errors import EmpError

MAX_FILES = 10_000
_TOP = "emp_orch"
# What tarfile raises for an archive that is not one; a hostile one finds more than TarError.
_BROKEN = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError, KeyError, IndexError)


class BadPackage(EmpError):
    """An archive that must not be used: it is not what was named, or does not run here."""


def check_digest(archive: Path, digest: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise BadPackage(f"the archive has the sha256 {found[:12]}…, not {digest[:12]}…")


def unpack(archive: Path, to: Path) -> None:
    """Regular files below emp_orch/ and nothing else, each of them new, no larger than the archive in all."""
    room = archive.stat().st_size
    to.mkdir()
    try:
        with tarfile.open(archive, mode="r:") as tar:
            for member in _files(tar):
                room -= member.size
                if room < 0:
                    raise BadPackage(f"{member.name!r} is larger than its archive")
                content = tar.extractfile(member)
                if content is None:
                    raise BadPackage(f"{member.name!r} has no content")
                _make_folders(to, member.name)
                _write_file(to / member.name, content, member.size)
        _sync(to)
    except _BROKEN as e:
        raise BadPackage(f"the archive is broken: {e}") from e
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as e:
        raise BadPackage("the archive names one file twice") from e


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= MAX_FILES:
            raise BadPackage(f"the archive has more than {MAX_FILES} files")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise BadPackage(f"{member.name[:100]!r} in the archive is not a regular file")
        if not _is_below_top(member.name):
            raise BadPackage(f"{member.name[:100]!r} in the archive is not below {_TOP}/")
        if member.size < 0:
            raise BadPackage(f"{member.name!r} in the archive has a size below zero")
        yield member


def _is_below_top(name: str) -> bool:
    parts = name.split("/")
    if parts[0] != _TOP or len(parts) < 2 or len(name) > 1_000:
        return False
    return all(p not in ("", ".", "..") and "\0" not in p and "\\" not in p and len(p) <= 60 for p in parts)


def _make_folders(to: Path, name: str) -> None:
    """Those that the file lies in, below `to`; should that be moved meanwhile, its path is not made anew."""
    folder = to
    for part in name.split("/")[:-1]:
        folder = folder / part
        folder.mkdir(exist_ok=True)


def _write_file(path: Path, content: IO[bytes], size: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file)
        if file.tell() != size:
            raise BadPackage(f"{path.name!r} is cut off in the archive")


def _sync(folder: Path) -> None:
    """All of it onto the disk; side by side, as each file alone waits for the disk's journal."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        for _ in pool.map(_sync_one, [folder, *folder.rglob("*")]):
            pass


def _sync_one(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
