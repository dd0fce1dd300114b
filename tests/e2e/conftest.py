"""One real stack for the tests that only look at it; tests that break things bring up their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.stack.stack import Stack


def _standing(folder: Path, **env: str) -> Iterator[Stack]:
    stack = Stack(folder)
    try:
        stack.up(**env)
        yield stack
    finally:
        stack.run("down")
        left = stack.leftovers()
        assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A converged fleet of one machine with two GPU slots; whoever breaks it waits until it has healed."""
    yield from _standing(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, str]]:
    """A fleet's folder for all tests of a file, and the text of its emp.yaml."""
    stack = Stack(tmp_path_factory.mktemp("one"))
    yield stack, stack.file.read_text()
    stack.run("down")
    left = stack.leftovers()
    assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


@pytest.fixture
def again(one_folder: tuple[Stack, str]) -> Stack:
    """The fleet of the test before, brought back to the default emp.yaml with one slot: cheaper than a new one.

    Its generations count on, and what its jobs made is there.
    """
    stack, text = one_folder
    stack.file.write_text(text)
    for name in (".env", "p.json"):
        (stack.root / name).unlink(missing_ok=True)
    if stack.run("apply", "-y", "--prune", "--timeout", "120", NUM_GPUS="1").returncode:
        stack.run("down")  # a test that failed left something behind
        stack.up(NUM_GPUS="1")
    return stack


@pytest.fixture
def folder_stack(tmp_path: Path) -> Iterator[Stack]:
    """A fleet folder in which nothing was applied yet; brought down at the end, whatever ran."""
    stack = Stack(tmp_path)
    yield stack
    if stack.layout.settings.exists():
        stack.run("down")
    left = stack.leftovers()
    assert not left, "processes outlive `emp down`:\n" + "\n".join(left)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal; a process takes the second for its stdin."""
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)
