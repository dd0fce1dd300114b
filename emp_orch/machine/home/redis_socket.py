"""Where a machine without a login at Redis finds it: on a socket in its folder, on which its agent listens."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

SOCKET = "redis.sock"
# What a path of a socket may have on Linux, without its end.
MAX_SOCKET_PATH = 107


def socket_of(root: Path) -> Path:
    """Where the agent of the machine in `root` listens: elsewhere, where that path is too long for a socket."""
    here = root.absolute() / SOCKET
    if len(os.fsencode(here)) <= MAX_SOCKET_PATH:
        return here
    name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"emp-{os.getuid()}-{name}" / SOCKET


def url_of(root: Path) -> str:
    """The way to Redis of agent and workers there."""
    return f"unix://{socket_of(root)}"
