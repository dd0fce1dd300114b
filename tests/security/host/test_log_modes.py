"""Logs hold what programs say: nobody but their owner, and its group, reads them, unless somebody widens that."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch.loglines import LastingFile
from emp_orch.machine.boot.bootstrap import make
from emp_orch.machine.supervision.logs import LogFile
from support.stack.stack import MACHINE, Stack, until

WIDE_UMASK = 0o022


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    made = Stack(tmp_path / "fleet")
    yield made
    made.run("down")
    assert made.leftovers() == []


@pytest.fixture
def wide() -> Iterator[None]:
    """The umask that most have: it takes away nothing but writing."""
    before = os.umask(WIDE_UMASK)
    yield
    os.umask(before)


def modes(root: Path) -> dict[str, str]:
    """What others could read or enter below `root`, with the modes."""
    found = [root, *root.rglob("*")] if root.is_dir() else []
    return {str(p): oct(stat.S_IMODE(p.lstat().st_mode)) for p in found if p.lstat().st_mode & 0o027}


def up(stack: Stack) -> None:
    argv = stack.argv("apply", "-y", "--timeout", "120")
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, umask=WIDE_UMASK, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fleets_logs_are_its_owners(stack: Stack) -> None:
    up(stack)
    logs = stack.layout.logs
    assert len(list(logs.rglob("*.log"))) > 8
    assert modes(logs) == {}
    assert stat.S_IMODE(stack.layout.state.stat().st_mode) == 0o700

    # What is made again is as it was; what its owner has widened stays so.
    shutil.rmtree(logs)
    wanted = [logs / "control.log", logs / "api.log", logs / f"machine-{MACHINE}" / "simulation.log"]
    until("the logs are back", lambda: all(path.exists() for path in wanted))
    assert modes(logs) == {}
    logs.chmod(0o755)
    stack.ok("down")
    up(stack)
    assert stat.S_IMODE(logs.stat().st_mode) == 0o755
    assert set(modes(logs)) == {str(logs)}


def test_a_rotated_log_of_a_program(tmp_path: Path, wide: None) -> None:
    log = LogFile(str(tmp_path / "p.log"), most_bytes=10, backups=2)
    log.setFormat("%(message)s")
    for _ in range(3):
        log._write(b"0123456789\n")
        log._rotate_if_due()
    log.close()
    assert len(list(tmp_path.glob("p.log*"))) == 3
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("p.log*")} == {0o640}


def test_a_rotated_log_of_emp(tmp_path: Path, wide: None) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LastingFile(folder / "e.log", maxBytes=10, backupCount=2)
    for _ in range(3):
        log.emit(logging.makeLogRecord({"msg": "0123456789"}))
    shutil.rmtree(folder)
    log.emit(logging.makeLogRecord({"msg": "again"}))
    log.close()
    assert modes(folder) == {} and (folder / "e.log").exists()


def test_a_boxs_folder_is_its_owners(tmp_path: Path, wide: None) -> None:
    make(tmp_path / ".emp" / "machines" / "m")
    assert stat.S_IMODE((tmp_path / ".emp").stat().st_mode) == 0o700
