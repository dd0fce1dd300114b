"""A Redis of the bench's own: a free port on loopback, nothing on disk, stopped by its pid."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from msgspec import Struct

START_S = 10.0

# What the bench itself sends while it measures.
_OWN = frozenset({"info", "config|resetstat", "flushall", "monitor", "client|setinfo", "hello", "ping"})


class Load(Struct, frozen=True, kw_only=True):
    """What Redis has done since it started: CPU seconds, and commands, those inside scripts included."""

    cpu_s: float
    commands: int

    def since(self, before: Load) -> Load:
        return Load(cpu_s=self.cpu_s - before.cpu_s, commands=self.commands - before.commands)


class BenchRedis:
    """A running server, and a connection to look at it."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"redis://127.0.0.1:{port}/0"
        self.client: redis.Redis = redis.Redis(port=port, decode_responses=True, socket_timeout=30)

    def _info(self, section: str) -> dict[str, Any]:
        return self.client.info(section)

    def version(self) -> str:
        about = self._info("server")
        return f"{about.get('server_name', 'redis')} {about.get('valkey_version', about['redis_version'])}"

    def calls(self) -> dict[str, int]:
        """How often each command was run, the bench's own left out."""
        stats = self._info("commandstats")
        named = {name.removeprefix("cmdstat_"): int(row["calls"]) for name, row in stats.items()}
        return {name: calls for name, calls in named.items() if name not in _OWN}

    def cpu_s(self) -> float:
        cpu = self._info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def load(self) -> Load:
        return Load(cpu_s=self.cpu_s(), commands=sum(self.calls().values()))

    def clear(self) -> None:
        self.client.flushall()

    def settle(self, *, within_s: float = 3.0) -> None:
        """Return when next to nothing happens any more: what a drained worker still had to say is said."""
        deadline = time.monotonic() + within_s
        before = self.load().commands
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.load().commands
            if now - before <= 20:  # a peer that polls every 10 ms sends this many
                return
            before = now


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        raise SystemExit("bench: redis-server is not installed: apt-get install redis-server")
    return found


def _answers(server: BenchRedis) -> bool:
    try:
        return bool(server.client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def running(folder: Path) -> Iterator[BenchRedis]:
    port = free_port()
    argv = [_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    argv += ["--save", "", "--appendonly", "no", "--maxclients", "2000"]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    server = BenchRedis(port, process.pid)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(server):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"bench: redis-server did not start: {(folder / 'redis.log').read_text()[-500:]}")
            time.sleep(0.02)
        yield server
    finally:
        server.client.close()
        process.terminate()
        process.wait()
