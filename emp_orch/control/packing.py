"""emp's own modules as one archive, the worker package: the same content gives the same bytes, on every host.

A plain tar: what a compressor makes of the same bytes differs from one zlib to another, and nothing that is smaller
than it unpacks to can be a bomb.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

from emp_orch.errors import EmpError
from emp_orch.fleet.package import WorkerPackage
from emp_orch.layout import Layout
from emp_orch.resources import MODULES, data_files
from emp_orch.settings import write_private

# Archives that stay, the newest of them: those of the last versions of emp that applied here.
KEPT = 5
_LEFT_OUT = ("__pycache__",)


def pack(modules: Path, data: dict[str, Path]) -> bytes:
    """The package `modules` as an archive with the files of `data` in its `_data`. Raises OSError."""
    found = {f"_data/{name}": path for name, path in data.items()}
    for path in modules.rglob("*"):
        name = path.relative_to(modules)
        if path.is_file() and name.parts[0] != "_data" and not _passed_over(name):
            found[name.as_posix()] = path
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in sorted(found):
            content = found[entry].read_bytes()
            member = tarfile.TarInfo(f"{modules.name}/{entry}")  # its time, owner and mode are the same for all
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _passed_over(name: Path) -> bool:
    return name.suffix == ".pyc" or any(p in _LEFT_OUT or p.startswith(".") or p.endswith("~") for p in name.parts)


@cache
def _own() -> bytes:
    try:
        return pack(MODULES, data_files())
    except OSError as e:
        raise EmpError(f"cannot read emp's own {e.filename}: {e.strerror}", hint="reinstall emp") from e


def own_package() -> WorkerPackage:
    """The package that this very emp makes. Raises EmpError."""
    return WorkerPackage(digest=hashlib.sha256(_own()).hexdigest())


def keep_own(layout: Layout) -> None:
    """Put this emp's package where the API serves it from; the oldest of the others go. Raises EmpError."""
    path = layout.package(own_package().digest)
    try:
        layout.packages.mkdir(parents=True, exist_ok=True)
        if path.is_file() and path.read_bytes() == _own():
            path.touch()
        else:
            write_private(path, _own())
        kept = sorted(layout.packages.glob("*.tar"), key=lambda p: p.stat().st_mtime_ns, reverse=True)
        for old in kept[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as e:
        raise EmpError(
            f"cannot write {layout.packages}: {e.strerror}",
            hint="check who owns the folder, and its free space",
        ) from e
