"""Facts of this host: folders and their owners, environments of our own processes, who holds a lock.

Source: proc(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.procident import alive, recorded


class PathFacts(Struct, frozen=True, kw_only=True):
    """`mode` are the permission bits; `mine`: owned by the user who asks."""

    path: str
    exists: bool
    mine: bool
    writable: bool
    mode: int
    owner: int


class FolderFacts(Struct, frozen=True, kw_only=True):
    root: PathFacts
    state: PathFacts
    logs: PathFacts
    private: tuple[PathFacts, ...]


class Trouble(Struct, frozen=True, kw_only=True):
    """Why nobody can go on in the fleet's folder as it is, and the way out."""

    what: str
    fix: str


def trouble_of(layout: Layout) -> Trouble | None:
    """Whether the folder is a copy, was moved while its fleet ran, or lost what tells of it."""
    try:
        found: EmpError | None = ownership.look(layout.root).trouble
    except (ownership.CopiedFolder, ownership.ForeignFolder) as e:
        found = e
    except OSError:
        return None  # there is none, or it is another user's: other checks say so
    return None if found is None else Trouble(what=found.message, fix=found.hint)


def folder_facts(layout: Layout) -> FolderFacts:
    """The fleet's folders, and the files in them that may hold secrets."""
    homes = sorted(layout.machines.glob("*/secrets.json"))
    return FolderFacts(
        root=_path(layout.root),
        state=_path(layout.state),
        logs=_path(layout.logs),
        private=tuple(_path(p) for p in (layout.settings, layout.secrets, *homes)),
    )


def _path(path: Path) -> PathFacts:
    try:
        found = path.stat()
    except OSError:
        return PathFacts(path=str(path), exists=False, mine=False, writable=False, mode=0, owner=0)
    return PathFacts(
        path=str(path),
        exists=True,
        mine=found.st_uid == os.geteuid(),
        writable=os.access(path, os.W_OK),
        mode=stat.S_IMODE(found.st_mode),
        owner=found.st_uid,
    )


def environment_of(identity: Path, name: str) -> str | None:
    """A variable of the living process recorded at `identity`; "" when it is not set, None when we cannot tell."""
    who = recorded(identity)
    if who is None or not alive(who):
        return None
    try:
        variables = Path(f"/proc/{who.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    start = f"{name}=".encode()
    return next((v[len(start) :].decode(errors="replace") for v in variables if v.startswith(start)), "")


def lock_holders(locks: Mapping[str, Path]) -> dict[str, int]:
    """The pids that hold one of `locks` now, by the lock's name."""
    inodes = {}
    for name, path in locks.items():
        try:
            inodes[path.stat().st_ino] = name
        except OSError:
            continue
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return {}
    found = {}
    for fields in map(str.split, lines):
        # 1: FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF; a waiter has `->` before its kind
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2].isdigit():
            held = inodes.get(int(fields[5].rpartition(":")[2]))
            if held is not None:
                found[held] = int(fields[4])
    return found
