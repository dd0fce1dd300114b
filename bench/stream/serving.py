"""Processes that serve a crowd or a page, and what they cost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from msgspec import Struct

from bench.reconcile.children import Failed, daemon
from emp_orch.settings import Settings

LIVE = "/api/events/monitor?live=1"
UP_S = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class Server(Struct, frozen=True, kw_only=True):
    """Who serves: where, and as which process."""

    url: str
    path: str
    pid: int


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int, name: str = "VmRSS") -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")) / 1024


def until_up(url: str) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            with urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError as e:
            if time.monotonic() > deadline:
                raise Failed(f"{url} does not answer: {e}") from e
        time.sleep(0.05)


@contextmanager
def emp(folder: Path, made: Settings, name: str) -> Iterator[Server]:
    """`emp api` or `emp monitor`, up."""
    argv = (sys.executable, "-m", "emp_orch", "-C", str(folder), name)
    with daemon(argv, log=folder / f"{name}.log") as process:
        url = made.api.url if name == "api" else made.monitor.url
        until_up(f"{url}/ready")
        yield Server(url=url, path=LIVE, pid=process.pid)
