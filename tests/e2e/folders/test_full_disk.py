"""The disk of a fleet fills up while it runs: nothing ends, it is said where, and all goes on when there is room."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.marks import marked
from emp_orch.procident import ProcessIdentity, alive
from support.host.small_disk import SmallDisk, small_disk
from support.stack.stack import MACHINE, Stack, until

# What is killed meanwhile, by its mark; each starts again without room for a note of it.
KILLED = ("agent", "simulation", "reconcile")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 400) as disk:
        yield disk


@pytest.fixture
def stack(disk: SmallDisk, tmp_path: Path) -> Iterator[Stack]:
    """All of it on the small disk, but Redis."""
    stack = Stack(disk.folder / "fleet")
    (tmp_path / "redis").mkdir()
    stack.layout.state.mkdir()
    stack.layout.redis.symlink_to(tmp_path / "redis")
    yield stack
    disk.empty()
    stack.run("down")
    assert not stack.leftovers()


def main_of(stack: Stack, program: str, *, but: ProcessIdentity | None = None) -> ProcessIdentity:
    def look() -> ProcessIdentity | None:
        found = (m.who for m in marked() if m.folder == str(stack.root) and m.mark.program == program)
        return next((who for who in found if who != but), None)

    return until(f"a process of {program}", look, shown=stack.log_ends)


def told(stack: Stack) -> list[dict[str, Any]]:
    """What `emp diff` finds; nothing while Redis or the API is away."""
    done = stack.run("diff", "--json")
    return [item["drift"] for item in json.loads(done.stdout)["drift"]] if done.returncode in (0, 1) else []


def use_up_last_block(log: Path) -> None:
    """The next line needs another block."""
    with log.open("ab") as file:
        file.write(b"\n" * (-log.stat().st_size % os.statvfs(log).f_bsize))


def test_a_disk_that_fills_up(stack: Stack, disk: SmallDisk) -> None:
    stack.up()
    supervisords = [stack.program("supervisord"), stack.control("supervisord")]
    own = stack.layout.log(f"machine-{MACHINE}")
    disk.fill()
    for log in (own, stack.layout.log("control")):
        use_up_last_block(log)
    for name in KILLED:
        killed = main_of(stack, name)
        os.kill(killed.pid, signal.SIGKILL)
        main_of(stack, name, but=killed)

    # All that was killed runs, and reports: nothing else is wrong.
    said = [("disk-full", f"no space left on {stack.layout.machine(MACHINE)}")]
    until("it is said where", lambda: [(d["kind"], d["cause"]) for d in told(stack)] == said, shown=stack.log_ends)
    assert all(map(alive, supervisords))
    disk.empty()
    stack.until_in_sync()
    os.kill(main_of(stack, "simulation").pid, signal.SIGKILL)
    until("its log goes on", lambda: "bytes are lost here: No space left" in own.read_text())
    assert all(map(alive, supervisords))
