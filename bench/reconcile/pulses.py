"""What the killed programs say when they begin: name and pid, through a pipe that all of them share."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

from msgspec import Struct

from bench.reconcile.children import Failed

PROGRAM = Path(__file__).with_name("pulse.sh")


class Pulse(Struct, frozen=True, kw_only=True):
    """One start. `at_ns` by CLOCK_MONOTONIC."""

    name: str
    pid: int
    at_ns: int


class Pulses:
    """The reading end. A line is shorter than a pipe's atomic write, so lines come whole."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        # Open for writing too: then no program waits for a reader, and no end is ever read.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.last: dict[str, Pulse] = {}

    def close(self) -> None:
        os.close(self._fd)

    def argv(self, name: str) -> tuple[str, ...]:
        """The program that says `name`."""
        return ("/bin/sh", str(PROGRAM), name, str(self.path))

    def after(self, name: str, at_ns: int, within_s: float) -> Pulse:
        """The first start of `name` after `at_ns`. Raises Failed."""
        deadline = time.monotonic() + within_s
        while (found := self.last.get(name)) is None or found.at_ns <= at_ns:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"{name} did not start within {within_s:.0f} s")
            self._read(left)
        return found

    def _read(self, within_s: float) -> None:
        ready, _, _ = select.select([self._fd], [], [], within_s)
        if not ready:
            return
        text, now = os.read(self._fd, 1 << 16).decode(), time.monotonic_ns()
        for line in text.splitlines():
            name, pid = line.split()
            self.last[name] = Pulse(name=name, pid=int(pid), at_ns=now)
