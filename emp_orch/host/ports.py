"""Ports of this host: which are taken, and by whom."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from emp_orch.host.listening import listening_sockets

# Where emp, its workers and its checks look for a service of the same host.
LOOPBACK = "127.0.0.1"


class Holder(Struct, frozen=True, kw_only=True):
    """Who listens on a port. `pid` is 0 when it cannot be seen: another user's process.

    `command` is its command line, which may hold secrets of its own; `name` is the kernel's for it, and does not.
    """

    pid: int
    group: int
    command: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.command} (pid {self.pid})" if self.pid else "another user's process"

    def belongs_to(self, leader: int) -> bool:
        """Whether it is the process `leader`, or one of the group that `leader` leads."""
        return leader != 0 and leader in (self.pid, self.group)


def port_holders(ports: Set[int]) -> dict[int, Holder]:
    """Who listens on each of `ports`, on any address: one of several. Those that nobody listens on are left out."""
    return {port: max(holders, key=lambda h: h.pid) for port, holders in listeners(ports).items()}


def listeners(ports: Set[int]) -> dict[int, list[Holder]]:
    """All who listen on each of `ports`, on any address; those that nobody listens on are left out. One pass."""
    sockets = _listening(ports)
    found: dict[int, list[Holder]] = {port: [] for port in sockets.values()}
    if not sockets:
        return {}
    seen: set[str] = set()
    for process in Path("/proc").iterdir():
        held = _held(process, sockets) if process.name.isdigit() else set()
        for port in {sockets[s] for s in held}:
            found[port].append(_holder(process))
        seen |= held
    for port in {port for s, port in sockets.items() if s not in seen}:
        found[port].append(Holder(pid=0, group=0, command=""))
    return found


def elsewhere(port: int) -> str:
    """Where somebody listens on `port`, when that is on no address by which LOOPBACK is reached:
    `it listens on [::1]:8188, not on 127.0.0.1`; else empty.
    """
    found = dict.fromkeys(_addresses(port))
    if not found or found.keys() & {LOOPBACK, f"::ffff:{LOOPBACK}", "0.0.0.0"}:  # noqa: S104  # compared, not bound
        return ""
    places = " and ".join(f"[{a}]:{port}" if ":" in a else f"{a}:{port}" for a in found)
    return f"it listens on {places}, not on {LOOPBACK}"


class StrangersPort(ConnectionRefusedError):
    """Somebody who is neither the fleet's user nor root listens where a part of the fleet should."""

    def __init__(self, port: int, uid: int) -> None:
        said = f"port {port} is taken by another user of this host (uid {uid}), who is told nothing"
        super().__init__(errno.ECONNREFUSED, said)

    def __str__(self) -> str:
        return str(self.strerror)


def refuse_strangers(host: str, port: int, owner: int) -> None:
    """Raise StrangersPort where who listens on host:port is neither the user `owner` nor root.

    For before a login is sent: who is quick takes a port while what listened there starts anew. Nothing is raised where
    `host` is no loopback address, or nobody can be seen to listen. The kernel tells everybody whose a socket is.
    """
    if host == "localhost":
        host = LOOPBACK
    if not host.startswith("127.") and host != "::1":
        return
    by_address: dict[str, set[int]] = {}
    for address, uid in _listening_users(port):
        by_address.setdefault(address, set()).add(uid)
    # Who listens on the very address is asked before who does on all of them.
    told = [by_address[a] for a in (host, f"::ffff:{host}", "0.0.0.0", "::") if a in by_address]  # noqa: S104  # compared
    for uid in told[0] if told else ():
        if uid not in (owner, 0):
            raise StrangersPort(port, uid)


def _addresses(port: int) -> Iterator[str]:
    """The addresses on which somebody listens on `port`."""
    yield from (address for address, _ in _listening_users(port))


def _listening_users(port: int) -> Iterator[tuple[str, int]]:
    """Address and user id of each socket that listens on `port`."""
    yield from ((found.address, found.uid) for found in listening_sockets() if found.port == port)


def _listening(ports: Set[int]) -> dict[str, int]:
    """The listening sockets of `ports`, as /proc/PID/fd names them."""
    return {f"socket:[{found.inode}]": found.port for found in listening_sockets() if found.port in ports}


def _held(process: Path, sockets: Mapping[str, int]) -> set[str]:
    """Which of `sockets` the process holds; descriptors may come and go meanwhile."""
    held = set()
    try:
        for descriptor in (process / "fd").iterdir():
            with suppress(FileNotFoundError):
                held.add(str(descriptor.readlink()))
    except OSError:
        pass  # it ended, or is another user's
    return held & sockets.keys()


def _holder(process: Path) -> Holder:
    pid = int(process.name)
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        command = _shown(b" ".join(w for w in words if w))[:80]
        name = _shown((process / "comm").read_bytes().rstrip(b"\n"))
        return Holder(pid=pid, group=os.getpgid(pid), command=command, name=name)
    except OSError:
        return Holder(pid=pid, group=0, command="a process that has just ended")


def _shown(text: bytes) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.decode(errors="replace"))


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
