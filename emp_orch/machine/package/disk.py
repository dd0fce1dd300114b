"""Worker packages on a machine's disk: checked, unpacked beside, switched to in one step, the others deleted.

`packages/DIGEST/` is one whole package: it gets that name only when every byte of it is on disk. `packages/current` is
a link to the one that workers start from (launch.py follows it). Whatever is killed on the way, the next call finds
whole packages only, and takes away the rest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.isolation import led_by
from emp_orch.machine.package.archive import BadPackage, check_digest, unpack
from emp_orch.procident import locked

CHECK_S = 60.0
CURRENT = "current"
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What a worker's start imports, from nowhere but the package.
_CHECK = (
    "import emp_orch, emp_orch.cli.worker, emp_orch.worker.daemon, os.path, sys\n"
    "here = os.path.realpath(emp_orch.__file__)\n"
    "sys.exit(None if here.startswith(os.path.realpath(sys.argv[1]) + os.sep) else 'another emp_orch comes first')"
)


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
            self.root.mkdir(exist_ok=True)

    def install(self, digest: str) -> None:
        """Take the downloaded archive in. Raises BadPackage, after which that archive is gone too."""
        archive, staged = self.part(digest), self.root / f".{digest}.new"
        with locked(self.root / ".lock"), _told(self.root):
            if self.has(digest):
                return
            shutil.rmtree(staged, ignore_errors=True)
            try:
                check_digest(archive, digest)
                unpack(archive, staged)
                _check_import(staged)
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


def _check_import(staged: Path) -> None:
    """A package needs what this machine's image has: found out before any worker starts from it."""
    try:
        done = subprocess.run(  # our own interpreter, no shell
            [sys.executable, "-P", "-c", _CHECK, str(staged)],
            env=led_by(str(staged), dict(os.environ)),
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
