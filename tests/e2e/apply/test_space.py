"""No room, or no right to write: `emp apply` says so before anything starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack.stack import Stack


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def refused(stack: Stack) -> str:
    """What `emp apply` says; nothing of the fleet runs, or is there."""
    done = stack.run("apply", "-y")
    assert done.returncode == 1, done.stderr
    assert not stack.leftovers()
    return done.stderr


def test_too_little_space(small: Path) -> None:
    stack = Stack(small / "fleet")
    said = refused(stack)
    assert f"MiB free in {stack.root}, 256 MiB needed" in said
    assert "free some space" in said
    assert not stack.layout.state.exists()


def test_too_little_space_for_the_logs_alone(small: Path, tmp_path: Path) -> None:
    stack = Stack(tmp_path / "fleet")
    stack.layout.logs.symlink_to(small)
    assert f"MiB free in {stack.layout.logs}" in refused(stack)


def test_a_read_only_folder(small: Path) -> None:
    stack = Stack(small / "fleet")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    assert f"cannot write in {stack.root}: its file system is mounted read-only" in refused(stack)
