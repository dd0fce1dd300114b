"""The mark of a fleet's folder, and the processes that carry one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emp_orch import marks
from emp_orch.marks import Mark
from emp_orch.procident import ProcessIdentity, identify, wait_end

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "prod"
    (root / ".emp").mkdir(parents=True)
    return root


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python line as a process with these variables; returns once it has said a line."""
    running: list[subprocess.Popen[bytes]] = []

    def run(code: str, **env: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **env},
        )
        running.append(child)
        assert child.stdout is not None
        assert child.stdout.readline()
        return child

    yield run
    for child in running:
        child.kill()
        child.communicate()


WAIT = "import sys; print(1, flush=True); sys.stdin.read()"


def who_of(child: subprocess.Popen[bytes]) -> ProcessIdentity:
    who = identify(child.pid)
    assert who is not None
    return who


@pytest.mark.parametrize(
    "text",
    ["", "1:2:3", "1:2:3:abc:m", "1:2:3:abc:m:p:q", "a:2:3:abc:m:p", "-1:2:3:abc:m:p", "1: 2:3:a:m:p", "¹:2:3:a:m:p"],
)
def test_what_is_no_mark(text: str) -> None:
    assert marks.parse(text) is None


@pytest.mark.parametrize("mark", [Mark(1, 2, 3, "0123456789ab", "m-1", "comfyui-gpu0"), Mark(9, 8, 0, "", "", "")])
def test_a_mark_is_read_as_it_was_written(mark: Mark) -> None:
    assert marks.parse(str(mark)) == mark


def test_a_folder_is_known_by_itself_and_not_by_its_path(folder: Path, tmp_path: Path) -> None:
    first = marks.settle(folder)
    assert len(first.fleet) == 12
    assert marks.settle(folder) == first == marks.of_folder(folder)
    copy = tmp_path / "staging"
    shutil.copytree(folder, copy)
    assert marks.of_folder(copy).place != first.place
    assert marks.told_in(copy) == (first, str(folder))
    moved = folder.rename(tmp_path / "moved")
    assert marks.of_folder(moved) == first
    assert marks.told_in(moved) == (first, str(folder))
    assert marks.applied_as(moved) == folder
    assert marks.settle(moved) == first
    assert marks.told_in(moved) == (first, str(moved))
    assert marks.settle(copy).fleet not in ("", first.fleet)


def test_a_link_to_the_folder_is_no_move(folder: Path, tmp_path: Path) -> None:
    first = marks.settle(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert marks.settle(link) == first
    assert marks.told_in(link) == (first, str(folder))
    assert marks.applied_as(link) == folder


def test_a_folder_has_a_birth_that_its_use_does_not_change(folder: Path) -> None:
    before = marks.of_folder(folder)
    if before.birth_ns == 0:
        pytest.skip("this file system tells no birth")
    os.utime(folder, (1, 1))
    folder.chmod(0o700)
    assert marks.of_folder(folder) == before


@pytest.mark.parametrize("text", ["", "nonsense", "1:2:3:f:m:p:q\n/x\n"])
def test_a_damaged_identity_counts_as_none(folder: Path, text: str) -> None:
    (folder / ".emp" / "identity").write_text(text)
    assert marks.told_in(folder) is None
    assert marks.settle(folder).fleet


def test_marked_processes_are_found_whatever_they_are_called(folder: Path, start: Start) -> None:
    mark = marks.settle(folder).of("m", "p")
    ours = start(WAIT, **marks.environment(mark, folder))
    start(WAIT, EMP_MARK="1:2", NOT_EMP_MARK=str(mark))
    start(WAIT, X=f"EMP_MARK={mark}")
    found = [one for one in marks.marked() if one.mark.place == mark.place]
    assert found == [(who_of(ours), mark, str(folder))]
    ours.kill()
    ours.wait()
    assert not [one for one in marks.marked() if one.mark.place == mark.place]


def test_one_that_wiped_its_environment_is_found_by_its_parent(folder: Path, start: Start) -> None:
    code = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(['/bin/sleep', '600'], env={}, start_new_session=True)\n"
        "other = subprocess.Popen(['/bin/sleep', '600'], env={'EMP_MARK': '1:2:3:f::p'})\n"
        "print(child.pid, other.pid, flush=True)\n"
        "sys.stdin.read(); child.kill(); other.kill(); child.wait(); other.wait()"
    )
    mark = marks.settle(folder).of("", "p")
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=marks.environment(mark, folder),
    )
    assert parent.stdout is not None
    wiped, foreign = map(int, parent.stdout.readline().split())
    try:
        found = [one for one in marks.marked() if one.mark.place == mark.place]
        assert {who.pid for who in marks.with_descendants(found)} == {parent.pid, wiped}
        assert identify(foreign) is not None
    finally:
        children = [who for pid in (wiped, foreign) if (who := identify(pid)) is not None]
        parent.communicate()
    assert all(wait_end(child, 5) for child in children)


def test_ours_is_left_out(folder: Path, start: Start) -> None:
    """Who asks may stand in a program of the fleet itself."""
    mark = marks.settle(folder).of("m", "shell")
    code = "from emp_orch import marks; print(len(marks.marked()), [m for m in marks.marked() if m.folder == %r])"
    child = subprocess.run(
        [sys.executable, "-c", code % str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, **marks.environment(mark, folder)},
    )
    assert child.stdout.endswith("[]\n"), child.stderr
