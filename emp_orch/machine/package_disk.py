"""Worker packages on a machine's disk: checked, unpacked beside, switched to in one step, the others deleted.

`packages/DIGEST/` is one whole package: it gets that name only when every byte of it is on disk. `packages/current` is
a link to the one that workers start from (launch.py follows it). Whatever is killed on the way, the next call finds
whole packages only, and takes away the rest.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from emp_orch.errors import EmpError
from emp_orch.procident import locked

MAX_FILES = 10_000
CHECK_S = 60.0
CURRENT = "current"
_TOP = "emp_orch"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What a worker's start imports, from nowhere but the package.
_CHECK = (
    "import emp_orch, emp_orch.cli.worker, emp_orch.worker.daemon, os.path, sys\n"
    "here = os.path.realpath(emp_orch.__file__)\n"
    "sys.exit(None if here.startswith(os.path.realpath(sys.argv[1]) + os.sep) else 'another emp_orch comes first')"
)
# What tarfile raises for an archive that is not one; a hostile one finds more than TarError.
_BROKEN = (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError, KeyError, IndexError)


class BadPackage(EmpError):
    """An archive that must not be used: it is not what was named, or does not run here."""


class PackageDisk:
    """The packages below one machine's folder. Its calls block; they raise EmpError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def current(self) -> str:
        """The digest that workers start from; empty: they start from the emp that the machine has."""
        try:
            name = str((self.root / CURRENT).readlink())
        except OSError:
            return ""
        return name if self.has(name) else ""

    def has(self, digest: str) -> bool:
        return _DIGEST.fullmatch(digest) is not None and (self.root / digest).is_dir()

    def part(self, digest: str) -> Path:
        """Where its archive is downloaded to."""
        return self.root / f".{digest}.part"

    def prepare(self) -> None:
        with _told(self.root):
            self.root.mkdir(parents=True, exist_ok=True)

    def install(self, digest: str) -> None:
        """Take the downloaded archive in. Raises BadPackage, after which that archive is gone too."""
        archive, staged = self.part(digest), self.root / f".{digest}.new"
        with locked(self.root / ".lock"), _told(self.root):
            if self.has(digest):
                return
            shutil.rmtree(staged, ignore_errors=True)
            try:
                _check_digest(archive, digest)
                _unpack(archive, staged)
                _check_import(staged)
                _sync_folder(staged)
                staged.rename(self.root / digest)
                _sync_folder(self.root)
            except BadPackage:
                archive.unlink(missing_ok=True)
                raise
            finally:
                shutil.rmtree(staged, ignore_errors=True)
            archive.unlink(missing_ok=True)

    def switch(self, digest: str) -> None:
        """Have workers start from `digest`, which is there, from now on."""
        with locked(self.root / ".lock"), _told(self.root):
            fresh = self.root / f".{CURRENT}.new"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(digest)
            fresh.replace(self.root / CURRENT)
            _sync_folder(self.root)

    def clean(self, keep: frozenset[str]) -> list[str]:
        """Delete every package but the current one and `keep`, and what was left half done; the digests deleted."""
        with locked(self.root / ".lock"), _told(self.root):
            stays = {*keep, self.current(), CURRENT, ".lock"}
            found = sorted(p for p in self.root.iterdir() if p.name not in stays)
            for path in found:
                if path.is_dir() and not path.is_symlink():
                    # Out of the way first: half deleted, it must not pass for a package.
                    doomed = path if path.name.startswith(".") else path.rename(self.root / f".{path.name}.old")
                    shutil.rmtree(doomed)
                else:
                    path.unlink(missing_ok=True)
            return [p.name for p in found if _DIGEST.fullmatch(p.name)]


class _told:
    """What the disk refuses, as our error."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        if isinstance(value, OSError):
            raise disk_error(self._root, value) from value


def disk_error(root: Path, e: OSError) -> EmpError:
    return EmpError(f"cannot write in {root}: {e.strerror}", hint="check the free space, and who owns the folder")


def _check_digest(archive: Path, digest: str) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise BadPackage(f"the archive has the sha256 {found[:12]}…, not {digest[:12]}…")


def _unpack(archive: Path, to: Path) -> None:
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
                _write_file(to / member.name, content, member.size)
    except _BROKEN as e:
        raise BadPackage(f"the archive is broken: {e}") from e
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as e:
        raise BadPackage("the archive names one file twice") from e


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(tar):
        if count >= MAX_FILES:
            raise BadPackage(f"the archive has more than {MAX_FILES} files")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
            raise BadPackage(f"{member.name!r} in the archive is not a regular file")
        parts = member.name.split("/")
        if parts[0] != _TOP or len(parts) < 2 or any(p in ("", ".", "..") or "\0" in p or "\\" in p for p in parts):
            raise BadPackage(f"{member.name!r} in the archive is not below {_TOP}/")
        yield member


def _write_file(path: Path, content: IO[bytes], size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file)
        if file.tell() != size:
            raise BadPackage(f"{path.name!r} is cut off in the archive")
        file.flush()
        os.fsync(file.fileno())


def _check_import(staged: Path) -> None:
    """A package needs what this machine's image has: found out before any worker starts from it."""
    path = os.pathsep.join(filter(None, (str(staged), os.environ.get("PYTHONPATH"))))
    try:
        done = subprocess.run(  # our own interpreter, no shell
            [sys.executable, "-c", _CHECK, str(staged)],
            env={**os.environ, "PYTHONPATH": path},
            cwd=staged,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=CHECK_S,
        )
    except subprocess.TimeoutExpired:
        raise BadPackage(f"the package does not import within {CHECK_S:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise BadPackage(f"the package does not run here: {lines[-1] if lines else f'exit {done.returncode}'}")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
