"""Ports of this host: which are taken, and by whom. Source: proc(5), /proc/net/tcp."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from msgspec import Struct

_LISTEN = "0A"


class Listener(Struct, frozen=True, kw_only=True):
    """Who listens on a port. `pid` is 0 when it is another user's process and cannot be seen."""

    port: int
    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})" if self.pid else "another user's process"


def taken(host: str, port: int) -> bool:
    """Whether listening on host:port would fail because somebody does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            return e.errno == errno.EADDRINUSE
    return False


def listener(port: int) -> Listener | None:
    """Who listens on `port`, on any address; None when nobody does."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            return Listener(port=port, pid=int(process.name), command=_command(process))
    return Listener(port=port, pid=0, command="")


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _holds(process: Path, inodes: set[str]) -> bool:
    try:
        return any(str(fd.readlink()) in inodes for fd in (process / "fd").iterdir())
    except OSError:
        return False


def _command(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(w.decode(errors="replace") for w in words if w)[:80]
