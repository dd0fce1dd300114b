"""Processes of the bench that do as they are told: a JSON line asks, a JSON line answers."""

from __future__ import annotations

import asyncio
import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.queue.processes import ROOT, last_words

ANSWER_S = 180.0
STOP_S = 10.0
COMMAND_S = 300


class Failed(Exception):
    """A part of the bench could not be measured; the text says which and why."""


class Child:
    """A running child, and how it is asked."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """Its answer. Raises Failed when there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise Failed(f"{self._log.stem} did not answer {do!r}: {last_words(self._log.read_text(errors='replace'))}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def child(module: str, *args: str, log: Path) -> Iterator[Child]:
    """`python -m MODULE ARGS`, ended when its input is closed."""
    argv = [sys.executable, "-m", module, *args]
    with log.open("ab") as err:
        process = subprocess.Popen(
            argv, env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err
        )
    try:
        yield Child(process, log)
    finally:
        end(process)


@contextmanager
def daemon(argv: Sequence[str], *, log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until it is told to stop by SIGTERM."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            argv, env=env or environment(), cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End one child: politely, then surely."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if process.stdin is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def questions() -> AsyncIterator[dict[str, Any]]:
    """In the child: what it is asked, until its input is closed."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def reply(**answer: Any) -> None:
    """In the child: answer the last question."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def run_command(*argv: str, cwd: Path) -> None:
    """Raises Failed with the last words of a command that does not end well within COMMAND_S."""
    words = " ".join(w for w in argv[:6] if not w.startswith("/"))
    try:
        done = subprocess.run(
            argv, env=environment(), cwd=cwd, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{words}: no end in {COMMAND_S} s") from None
    if done.returncode:
        raise Failed(f"{words}: exit {done.returncode}: {last_words(done.stderr)}")
