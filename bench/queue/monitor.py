"""What clients send to a Redis while nothing is asked of them, by MONITOR: commands inside scripts not counted."""

from __future__ import annotations

import contextlib
import socket
import time

from msgspec import Struct


class Sent(Struct, frozen=True, kw_only=True):
    """Commands that clients sent; `heartbeats` those of them that name the heartbeat's key."""

    commands: int
    heartbeats: int


def watch(port: int, seconds: float, heartbeat_key: str) -> Sent:
    """Count what is sent in the next `seconds`."""
    deadline = time.monotonic() + seconds
    received = b""
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"MONITOR\r\n")
        while (left := deadline - time.monotonic()) > 0:
            s.settimeout(left)
            with contextlib.suppress(TimeoutError):
                received += s.recv(1 << 16)
    lines = [line for line in received.decode(errors="replace").splitlines()[1:] if " lua] " not in line]
    return Sent(commands=len(lines), heartbeats=sum(f'"{heartbeat_key}"' in line for line in lines))
