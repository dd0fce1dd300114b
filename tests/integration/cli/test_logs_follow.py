"""`emp logs -f` as a process: what is written, rotated, cleared and new is shown as it comes; Ctrl-C ends it well."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

M = "machine-box"
WITHIN_S = 15


class Follower:
    """`emp logs -f` with its lines in a queue."""

    def __init__(self, folder: Path, *args: str) -> None:
        argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), "logs", "-f", *args]
        self.process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "TZ": "UTC"}
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        return self._lines.get(timeout=WITHIN_S)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WITHIN_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / ".emp").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "api.log").write_text("2026-11-23 10:00:01.000 old\n2026-11-23 10:00:02.000 last\n")
    return tmp_path


@pytest.fixture
def follow(folder: Path) -> Iterator[Follower]:
    follower = Follower(folder, "-n", "1")
    yield follower
    follower.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as f:
        f.write(text)


def test_lines_come_as_they_are_written(folder: Path, follow: Follower) -> None:
    api, logs = folder / "logs" / "api.log", folder / "logs"
    assert follow.line() == "api | 2026-11-23 10:00:02.000 last"
    append(api, "one\n")
    assert follow.line() == "api | one"

    api.rename(logs / "api.log.1")
    api.write_text("two\n")
    assert follow.line() == "api | two"

    cleared = subprocess.run(
        [sys.executable, "-m", "emp_orch", "-C", str(folder), "logs", "--clear"], capture_output=True, text=True
    )
    assert cleared.stdout == f"cleared 1 log (65 B), removed 1 older file in {logs}\n"
    append(api, "3\n")
    assert follow.line() == "api | 3"

    (logs / M).mkdir()
    (logs / M / "agent.log").write_text("hello\n")
    assert follow.line() == f"{M}/agent | hello"
    append(api, "four\n")
    assert follow.line() == "api               | four"
    assert follow.interrupt() == 0
    assert follow.process.stderr is not None
    assert follow.process.stderr.read() == ""


def test_who_reads_may_go_away(folder: Path) -> None:
    append(folder / "logs" / "api.log", "line\n" * 50_000)
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), "logs", "-n", "50000", "api"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.wait(WITHIN_S) == 0
    assert process.stderr.read() == ""
    process.stderr.close()


def test_it_sleeps_while_nothing_is_written(folder: Path, follow: Follower) -> None:
    follow.line()
    append(folder / "logs" / "api.log", "one\n")
    follow.line()

    def processor_ticks() -> int:
        fields = Path(f"/proc/{follow.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    switches = Path(f"/proc/{follow.process.pid}/status")

    def woken() -> int:
        return next(
            int(line.split()[1]) for line in switches.read_text().splitlines() if line.startswith("voluntary_ctxt")
        )

    before = processor_ticks(), woken()
    with pytest.raises(queue.Empty):
        follow._lines.get(timeout=1.5)
    assert processor_ticks() - before[0] <= 1
    assert woken() - before[1] <= 5
