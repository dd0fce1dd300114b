"""emp stops what it started, all of it, and nothing else; and one folder has one of each supervisord."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emp_orch.lifemark import place
from emp_orch.procident import alive, identify, locked
from support.stack.stack import MACHINE, Stack, until


@pytest.fixture
def up(folder_stack: Stack) -> Stack:
    folder_stack.up(NUM_GPUS="1")
    return folder_stack


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[int]:
    """A process whose name is not UTF-8, member of a process group whose leader has ended."""
    name = "имя-длиннее-15".encode()
    program = os.fsencode(tmp_path) + b"/" + name
    shutil.copy(os.fsencode(shutil.which("sleep") or "/bin/sleep"), program)
    shell = subprocess.run(
        ["sh", "-c", '"$0" 600 >/dev/null 2>&1 & echo $! $$', program],
        start_new_session=True,
        capture_output=True,
        check=True,
    )
    pid, leader = map(int, shell.stdout.split())
    assert identify(leader) is None
    assert os.getpgid(pid) == leader
    yield pid
    os.kill(pid, signal.SIGKILL)


def test_a_second_supervisord_is_refused(up: Stack) -> None:
    before = up.control("supervisord"), up.program("supervisord")
    for args in (("control",), ("machine", MACHINE)):
        done = up.run(*args)
        assert done.returncode == 1
        assert "already runs (pid" in done.stderr
    assert (up.control("supervisord"), up.program("supervisord")) == before
    assert up.diff()[0] == 0


def test_two_applies_at_once_start_one_control_plane(folder_stack: Stack) -> None:
    stack = folder_stack
    running = [
        subprocess.Popen(
            stack.argv("apply", "-y"), env={**os.environ, "NUM_GPUS": "1"}, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [p.communicate(timeout=120)[1] for p in running]
    assert 0 in [p.returncode for p in running], said
    assert not any("Traceback" in s for s in said)
    stack.until_in_sync()
    assert len(stack.running("supervisor.supervisord")) == 2
    assert len(stack.running("emp_orch api")) == 1


def test_an_apply_goes_on_with_the_password_that_another_made_meanwhile(folder_stack: Stack) -> None:
    stack = folder_stack
    stack.layout.control.mkdir(parents=True)
    lock = stack.layout.control / ".password.lock"
    with locked(lock):
        applied = subprocess.Popen(
            stack.argv("apply", "-y"), env={**os.environ, "NUM_GPUS": "1"}, stderr=subprocess.PIPE, text=True
        )
        until("the apply waits for the lock", lambda: _waits_for(lock, applied.pid))
        stack.layout.redis_password.write_text("a-password-that-another-apply-made\n")
    said = applied.communicate(timeout=120)[1]
    assert applied.returncode == 0, said
    assert stack.layout.redis_password.read_text() == "a-password-that-another-apply-made\n"


def _waits_for(lock: Path, pid: int) -> bool:
    inode = f":{lock.stat().st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(line[1] == "->" and line[5] == str(pid) and line[6].endswith(inode) for line in lines)


def test_down_with_a_dead_control_plane_stops_everything(up: Stack) -> None:
    os.kill(up.control("supervisord").pid, signal.SIGKILL)
    up.ok("down")
    assert up.leftovers() == []


def test_strangers_are_left_alone(up: Stack, stranger: int) -> None:
    """An identity of long ago whose group number a stranger has now: by pid alone it would be ours."""
    group = os.getpgid(stranger)
    for home in (up.layout.control, up.layout.machine(MACHINE)):
        (home / "run" / "ghost").write_text(f"{group} 12345 {group + 1} {place()}\n")
        (home / "run" / "other-boot").write_text(f"{stranger} 12345 {group} 0.0\n")
    who = identify(stranger)
    assert who is not None
    up.ok("down")
    assert alive(who)
    assert up.leftovers() == []


def test_a_damaged_state_folder_does_not_keep_anything_running(up: Stack) -> None:
    up.layout.settings.write_text("{")
    up.layout.generation.write_text("nonsense")
    assert up.run("status").returncode != 0
    up.ok("apply", "-y", NUM_GPUS="1")
    assert json.loads(up.layout.generation.read_bytes())["number"] == 1  # written anew, with nothing else to do
    up.layout.settings.write_text("{")
    up.layout.generation.write_text("nonsense")
    down = up.run("down")
    assert up.leftovers() == []
    assert down.returncode == 1  # whether boxes of pools run nobody can tell
    assert "boxes of its pools, if it has any, run on: " in down.stderr and "is damaged" in down.stderr


def test_a_fleet_whose_kept_generation_is_damaged_goes_down(up: Stack) -> None:
    """Redis knows it still."""
    up.layout.generation.write_text("nonsense")
    up.ok("down")
    assert up.leftovers() == []
