"""Who listens on TCP ports of this host, as the kernel tells it. Sources: sock_diag(7), proc(5).

The kernel is asked for the sockets that listen, and for no other: /proc/net/tcp holds every connection too, and to read
it takes 20 ms where there are ten thousand. It is read where the kernel does not answer.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

_SOCK_DIAG, _BY_FAMILY = 4, 20  # NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY
_REQUEST, _DUMP = 0x1, 0x300
_ERROR, _DONE = 2, 3
_LISTEN, _LISTEN_TEXT = 10, "0A"
_HEADER = struct.Struct("=IHHII")  # length, type, flags, number, sender
_ASKED = struct.Struct("=BBBxI48x")  # family, protocol, more, states; any addresses
# Family, state; ports and addresses; after the interface, the cookie and three numbers: user, inode.
_TOLD = struct.Struct("=BBxx2s2x16s16x4x8x12xII")
_AT_ONCE = 65_536
# A host's every port in answers of one socket each.
_MOST_ANSWERS = 100_000
_ANSWER_S = 1.0


class Listening(Struct, frozen=True):
    """One socket: the address that it listens on, its port, the user whose it is."""

    address: str
    port: int
    uid: int
    inode: int


def listening_sockets() -> tuple[Listening, ...]:
    """Of all users. Empty where nobody can tell."""
    try:
        return tuple(found for family in (socket.AF_INET, socket.AF_INET6) for found in by_kernel(family))
    except OSError:  # a kernel without it, or a sandbox
        return tuple(by_table())


def by_kernel(family: socket.AddressFamily) -> list[Listening]:
    """Raises OSError where the kernel is not to be asked."""
    asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 1 << _LISTEN)
    found: list[Listening] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_S)
        kernel.send(_HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST | _DUMP, 1, 0) + asked)
        for _ in range(_MOST_ANSWERS):
            more, ended = told_by(kernel.recv(_AT_ONCE))
            found += more
            if ended:
                return found
    raise OSError(errno.EPROTO, "sock_diag does not end")


def told_by(data: bytes) -> tuple[list[Listening], bool]:
    """The sockets that one answer of the kernel tells of, and whether it is the last. Raises OSError where the kernel
    says an error, or where the answer is none.
    """
    found: list[Listening] = []
    at = 0
    try:
        while at < len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if not _HEADER.size <= length <= len(data) - at:
                raise OSError(errno.EPROTO, f"sock_diag: a message of {length} bytes")
            message = data[at + _HEADER.size : at + length]
            if kind == _DONE:
                return found, True
            if kind == _ERROR:
                raise OSError(-struct.unpack_from("=i", message)[0], "sock_diag")
            if kind == _BY_FAMILY:
                found.append(_told(message))
            at += (length + 3) & ~3
    except (struct.error, ValueError) as e:
        raise OSError(errno.EPROTO, f"sock_diag: {e}") from e
    return found, False


def _told(message: bytes) -> Listening:
    family, _, port, address, uid, inode = _TOLD.unpack_from(message)
    words = address[:4] if family == socket.AF_INET else address
    return Listening(socket.inet_ntop(family, words), int.from_bytes(port, "big"), uid, inode)


def by_table() -> Iterator[Listening]:
    """The same from /proc/net/tcp and tcp6, as far as they can be read."""
    for table, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTEN_TEXT:
                address, _, port = fields[1].partition(":")
                yield Listening(
                    socket.inet_ntop(family, _bytes(address)), int(port, 16), int(fields[7]), int(fields[9])
                )


def _bytes(address: str) -> bytes:
    """Four at a time, in the order of this processor."""
    words = bytes.fromhex(address)
    groups = (words[at : at + 4] for at in range(0, len(words), 4))
    return b"".join(g[::-1] if sys.byteorder == "little" else g for g in groups)
