"""Where a user is, emp's own programs run on emp's own modules, and say at once what keeps them from it."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack.stack import MACHINE, Stack, until

SHADOWS = ("redis", "supervisor", "aiohttp", "msgspec", "click", "yaml", "email")
CAP_SYS_RESOURCE = 24
PR_CAPBSET_DROP = 24


@pytest.fixture
def placed(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "fleet")
    yield stack
    if stack.layout.control.is_dir():
        stack.run("down")
    assert stack.leftovers() == []


def test_modules_of_the_users_are_nobodys_but_the_services(placed: Stack, tmp_path: Path) -> None:
    """In PYTHONPATH and in the fleet's folder; a service still has what the user set."""
    lib = tmp_path / "lib"
    lib.mkdir()
    # The command that is typed follows PYTHONPATH to whatever emp_orch stands there first; a folder is no such word.
    for folder, names in ((lib, SHADOWS), (placed.root, (*SHADOWS, "emp_orch"))):
        for name in names:
            (folder / f"{name}.py").write_text(f"raise SystemExit('the user has a {name}')\n")
    env = {"PYTHONPATH": str(lib), "PYTHONSTARTUP": "/nowhere.py", "NUM_GPUS": "1"}
    # As the installed command has it: where it is typed holds no modules of its own.
    argv = [sys.executable, "-P", "-m", "emp_orch", "apply", "-y"]
    done = subprocess.run(argv, cwd=placed.root, env={**os.environ, **env}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{placed.log_ends()}"
    assert "completed" in placed.ok("submit", "simulation", "--wait", **env)
    service = placed.program("simulation")
    environ = Path(f"/proc/{service.pid}/environ").read_bytes().split(b"\0")
    assert f"PYTHONPATH={lib}".encode() in environ
    assert b"PYTHONSTARTUP=/nowhere.py" in environ
    assert "everything runs" in placed.ok("status", **env)


def test_a_part_that_ends_at_once_is_told_with_its_last_words(placed: Stack) -> None:
    aof = placed.layout.redis / "appendonlydir"
    aof.mkdir(parents=True)
    (aof / "appendonly.aof.manifest").write_text("garbage\n")
    done = placed.run("apply", "-y")
    assert done.returncode == 1, done.stderr
    assert "redis of the control plane does not stay up: it exited with status 1" in done.stderr
    assert "Invalid AOF manifest file format" in done.stderr


def test_a_part_that_cannot_be_started_is_told(placed: Stack) -> None:
    placed.layout.log("reconcile").mkdir(parents=True)
    done = placed.run("apply", "-y")
    assert done.returncode == 1, done.stderr
    assert "reconcile of the control plane does not stay up: supervisord cannot start it" in done.stderr


def _few_files() -> None:
    """Root without the right to raise its limits, as everybody else."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
    if os.getuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0)


def test_too_few_files_are_told_before_anything_starts(placed: Stack) -> None:
    argv = placed.argv("apply", "-y")
    done = subprocess.run(argv, preexec_fn=_few_files, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "emp: processes may open 128 files here (`ulimit -Hn`); emp's daemons need 1024" in done.stderr
    assert not placed.layout.state.exists()


def _soft_only() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def test_daemons_take_the_files_that_they_may(placed: Stack) -> None:
    argv = placed.argv("apply", "-y", "--no-wait")
    done = subprocess.run(argv, preexec_fn=_soft_only, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    until("the machine's agent", lambda: (placed.layout.machine(MACHINE) / "run" / "agent").exists())
    for who in (placed.control("api"), placed.control("reconcile"), placed.program("supervisord")):
        assert resource.prlimit(who.pid, resource.RLIMIT_NOFILE)[0] == min(hard, 1 << 20)
