"""Whose a fleet's folder is: by what stands in it, by what it is itself, and by the marks of processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emp_orch import marks, settings
from emp_orch.errors import EmpError
from emp_orch.host import ownership
from emp_orch.layout import Layout

Run = Callable[[Path], subprocess.Popen[bytes]]


@pytest.fixture
def prod(tmp_path: Path) -> Path:
    root = tmp_path / "prod"
    (root / ".emp" / "control").mkdir(parents=True)
    marks.settle(root)
    return root


@pytest.fixture
def run() -> Iterator[Run]:
    """Start a process of the fleet in this folder, at work in its `.emp/`."""
    running: list[subprocess.Popen[bytes]] = []

    def start(root: Path) -> subprocess.Popen[bytes]:
        mark = marks.of_folder(root).of("", marks.SUPERVISORD)
        child = subprocess.Popen(
            ["sleep", "600"], env={**os.environ, **marks.environment(mark, root)}, cwd=root / ".emp" / "control"
        )
        running.append(child)
        return child

    yield start
    for child in running:
        child.kill()
        child.wait()


def pids(found: ownership.Whose) -> list[int]:
    return [one.who.pid for one in found.running]


def test_a_folder_is_its_own(prod: Path, run: Run) -> None:
    ownership.refuse_to_apply(prod)
    child = run(prod)
    found = ownership.look(prod)
    assert (pids(found), found.moved_from, found.lost, found.trouble) == ([child.pid], None, False, None)


def test_a_copy_has_nothing_of_the_original(prod: Path, run: Run, tmp_path: Path) -> None:
    run(prod)
    copy = Path(shutil.copytree(prod, tmp_path / "staging"))
    for refused in (ownership.look, ownership.refuse_copies, lambda root: settings.load(Layout(root))):
        with pytest.raises(ownership.CopiedFolder, match=f"staging is a copy of {prod}:"):
            refused(copy)
    assert settings.known(Layout(copy)) is None
    shutil.rmtree(copy / ".emp")
    assert pids(ownership.look(copy)) == []


def test_a_copy_of_a_folder_that_was_moved_names_where_that_is_now(prod: Path, run: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(prod, tmp_path / "staging"))
    run(prod)
    moved = prod.rename(tmp_path / "moved")
    with pytest.raises(ownership.CopiedFolder, match=f"copy of {moved}:"):
        ownership.look(copy)


def test_a_copy_whose_original_is_gone_is_the_fleets_folder(prod: Path, tmp_path: Path) -> None:
    fleet = marks.of_folder(prod).fleet
    copy = Path(shutil.copytree(prod, tmp_path / "restored"))
    shutil.rmtree(prod)
    ownership.refuse_to_apply(copy)
    assert marks.settle(copy).fleet not in ("", fleet)


def test_moved_to_another_file_system_while_it_ran(prod: Path, run: Run, tmp_path: Path) -> None:
    child = run(prod)
    copy = Path(shutil.copytree(prod, tmp_path / "far"))
    shutil.rmtree(prod)
    found = ownership.look(copy)
    assert (pids(found), found.moved_from, found.lost) == ([child.pid], prod, False)
    with pytest.raises(ownership.MovedFolder, match=f"was moved from {prod} while its fleet ran: 1 process left"):
        ownership.refuse_to_apply(copy)


def test_moved_while_it_ran(prod: Path, run: Run, tmp_path: Path) -> None:
    child = run(prod)
    moved = prod.rename(tmp_path / "moved")
    found = ownership.look(moved)
    assert (pids(found), found.moved_from) == ([child.pid], prod)
    child.kill()
    child.wait()
    ownership.refuse_to_apply(moved)


def test_state_that_was_removed_and_made_anew(prod: Path, run: Run) -> None:
    child = run(prod)
    shutil.rmtree(prod / ".emp")
    assert (pids(ownership.look(prod)), ownership.look(prod).lost) == ([child.pid], True)
    (prod / ".emp").mkdir()
    marks.settle(prod)
    with pytest.raises(ownership.MovedFolder, match="was removed while its fleet ran"):
        ownership.refuse_to_apply(prod)


def test_a_part_whose_folder_is_another_now_refuses(
    prod: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in marks.environment(marks.of_folder(prod), prod).items():
        monkeypatch.setenv(name, value)
    ownership.refuse_strangers(prod)
    prod.rename(tmp_path / "moved")
    for make in (lambda: None, prod.mkdir):
        make()
        with pytest.raises(EmpError, match="no longer this fleet's folder"):
            ownership.refuse_strangers(prod)
