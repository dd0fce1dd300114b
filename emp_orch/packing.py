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
from emp_orch.resources import MODULES, data_files

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
def own_archive() -> bytes:
    try:
        return pack(MODULES, data_files())
    except OSError as e:
        raise EmpError(f"cannot read emp's own {e.filename}: {e.strerror}", hint="reinstall emp") from e


def own_digest() -> str:
    """The sha256 of the package that this very emp makes. Raises EmpError."""
    return digest_of(own_archive())


def digest_of(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()
