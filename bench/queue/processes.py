"""The producers and workers of one peer: started in sessions of their own, ended by their own process groups."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from bench.peers import given, setup
from bench.queue import emp_connector
from bench.queue.peers import Mode, Peer

ROOT = Path(__file__).resolve().parents[2]
PRODUCE_S = 300
STOP_S = 5.0


class PeerFailed(Exception):
    """A process of a peer ended badly, or its jobs did not run; the text says which and why."""


def end_in_order() -> None:
    """From now on SIGTERM ends this process as by an exception: all that was started is stopped on the way out."""

    def stopped(_number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, stopped)


def last_words(text: str) -> str:
    """The end of what a process wrote: with Python and Node alike that is where the reason stands."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " · ".join(lines[-3:])[-500:] or "it said nothing"


class Stage:
    """Where processes run: the Redis they use and the folder with the marks and their logs."""

    def __init__(self, redis_url: str, folder: Path, cache: Path) -> None:
        self.folder = folder
        _install_connector(folder)
        self._env = {
            **os.environ,
            "HUB_REDIS_URL": redis_url,
            "EMP_REDIS_PREFIX": "",
            "EMP_ARTIFACTS_URL": (folder / "artifacts").as_uri(),
            given.REDIS: redis_url,
            given.MARKS: str(folder),
            "EMP_BENCH_NODE": str(setup.folder(cache, "bullmq")),
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def produce(self, peer: Peer, mode: Mode, count: int, first: int = 0) -> float:
        """Put `count` jobs in; jobs a second by the producer's own clock."""
        argv = [*peer.producer, mode, str(count), str(first)]
        try:
            done = subprocess.run(
                argv, env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=PRODUCE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as e:
            raise PeerFailed(f"its producer: {e}") from e
        if done.returncode:
            raise PeerFailed(f"its producer ended with {done.returncode}: {last_words(done.stderr)}")
        return float(json.loads(done.stdout.splitlines()[-1])["rate"])

    @contextmanager
    def worker(self, argv: tuple[str, ...]) -> Iterator[Worker]:
        log = self.folder / "worker.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                argv, env=self._env, cwd=ROOT, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True
            )
        try:
            yield Worker(process, log)
        finally:
            _stop(process)


def _install_connector(folder: Path) -> None:
    """Have processes with `folder` on their path find the bench's connector, as an installed package's is found."""
    about = folder / "emp_bench-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: emp-bench\nVersion: 0\n")
    (about / "entry_points.txt").write_text(emp_connector.ENTRY_POINT)


class Worker:
    """A running worker process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def check(self) -> None:
        """Raise PeerFailed when the process is gone."""
        if self._process.poll() is not None:
            raise PeerFailed(f"its worker ended with {self._process.returncode}: {self.words()}")

    def words(self) -> str:
        return last_words(self._log.read_text(errors="replace"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the session `process` leads: politely, then surely. Some peers have children of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
