"""A box is known by its folder; a copy of that is another box."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from emp_orch.machine.boot.box_id import box_of


def test_it_stays_where_it_is_also_under_another_name(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    first = box_of(folder)
    assert len(first) == 32 and box_of(folder) == first
    assert box_of(folder.rename(tmp_path / "renamed")) == first
    assert (tmp_path / "renamed" / "box.json").stat().st_mode & 0o777 == 0o600


def test_a_copy_gets_one_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    folder, copy = tmp_path / "m", tmp_path / "copy"
    folder.mkdir()
    first = box_of(folder)
    shutil.copytree(folder, copy)
    second = box_of(copy)
    assert (second != first, box_of(copy), box_of(folder)) == (True, second, first)


def test_one_of_an_older_emp_stays(tmp_path: Path) -> None:
    (tmp_path / "box.json").write_text(json.dumps("ab" * 16))
    assert box_of(tmp_path) == "ab" * 16
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    assert box_of(tmp_path.with_name("copy")) != "ab" * 16


def test_one_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "box.json").write_text('{"box": "no", "place": 1}')
    assert len(box_of(tmp_path)) == 32
