"""A fleet in a folder whose name is anything that a file system takes: nothing that emp writes is taken apart at it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack.stack import MACHINE, Stack

NAME = 'my fleet\'s 100% "$x"; #1 ü\\n'


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / NAME)
    yield stack
    stack.run("down")
    assert stack.leftovers() == []


def test_a_fleet_lives_in_a_folder_of_any_name(named: Stack) -> None:
    named.up(NUM_GPUS="1")
    assert "everything runs" in named.ok("status")
    assert "completed" in named.ok("submit", "simulation", "--wait")
    assert "completed" in named.ok("logs", f"machine-{MACHINE}/redis-worker-gpu0")
    assert named.ok("exec", MACHINE, "--", "pwd").strip() == str(named.layout.machine(MACHINE))
    assert "all is well" in named.ok("doctor", NUM_GPUS="1")
    assert named.run("diff").returncode == 0
    assert named.ok("apply", "-y", NUM_GPUS="1").startswith("nothing to do")
    assert "the fleet is down" in named.ok("down")
    assert named.leftovers() == []


def test_a_folder_that_no_text_can_name_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"a\xff")
    folder.mkdir()
    argv = [sys.executable, "-m", "emp_orch", "-C", str(folder), "apply", "-y"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("emp: the name of the folder '")
    assert "is not UTF-8 text" in done.stderr
