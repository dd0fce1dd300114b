"""Facts of this host: folders and their owners, environments of our own processes, who holds a lock.

Source: proc(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Set
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

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


_LISTEN = "0A"


class Holder(Struct, frozen=True, kw_only=True):
    """Who listens on a port. `pid` is 0 when it cannot be seen: another user's process."""

    pid: int
    group: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})" if self.pid else "another user's process"

    def belongs_to(self, leader: int) -> bool:
        """Whether it is the process `leader`, or one of the group that `leader` leads."""
        return leader != 0 and leader in (self.pid, self.group)


def port_holders(ports: Set[int]) -> dict[int, Holder]:
    """Who listens on each of `ports`, on any address; those that nobody listens on are left out. One pass."""
    sockets = _listening(ports)
    found = {port: Holder(pid=0, group=0, command="") for port in sockets.values()}
    if not sockets:
        return {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for port in _held(process, sockets):
                found[port] = _holder(process)
    return found


def _listening(ports: Set[int]) -> dict[str, int]:
    """The listening sockets of `ports`, as /proc/PID/fd names them."""
    sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == _LISTEN and port in ports:
                sockets[f"socket:[{fields[9]}]"] = port
    return sockets


def _held(process: Path, sockets: Mapping[str, int]) -> set[int]:
    """Which of `sockets` the process holds, as ports; descriptors may come and go meanwhile."""
    held = set()
    try:
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(sockets.get(str(descriptor.readlink()), 0))
    except OSError:
        pass  # it ended, or is another user's
    return held - {0}


def _holder(process: Path) -> Holder:
    pid = int(process.name)
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        command = " ".join(w.decode(errors="replace") for w in words if w)[:80]
        return Holder(pid=pid, group=os.getpgid(pid), command="".join(c if c.isprintable() else "?" for c in command))
    except OSError:
        return Holder(pid=pid, group=0, command="a process that has just ended")


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
