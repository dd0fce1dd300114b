"""A notice in a machine's folder: until when jobs may run, and how many went back."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.host import notice


def test_who_is_told_nothing_has_all_its_time(tmp_path: Path) -> None:
    assert notice.left_s(tmp_path, 60.0) == 60.0
    assert notice.left_s(None, 60.0) == 60.0
    notice.give(tmp_path, None)
    assert notice.left_s(tmp_path, 60.0) == 60.0


@pytest.mark.parametrize(("notice_s", "jobs_s"), [(30.0, 20.0), (6.0, 4.0), (300.0, 290.0), (0.0, 0.0)])
def test_what_comes_after_the_jobs_has_its_part(tmp_path: Path, notice_s: float, jobs_s: float) -> None:
    assert notice.jobs_s(notice_s) == pytest.approx(jobs_s)
    notice.give(tmp_path, notice_s)
    assert notice.left_s(tmp_path, 1_000.0) == pytest.approx(jobs_s, abs=1.0)
    assert notice.left_s(tmp_path, 1.5) <= 1.5


@pytest.mark.parametrize("text", ["", "soon", "nan"])
def test_what_does_not_fit_is_no_notice(tmp_path: Path, text: str) -> None:
    (tmp_path / notice.FOLDER).mkdir()
    (tmp_path / notice.FOLDER / "until").write_text(text)
    assert 0.0 <= notice.left_s(tmp_path, 60.0) <= 60.0


def test_jobs_that_went_back_are_counted_until_the_next_life(tmp_path: Path) -> None:
    notice.note_returned(None)
    notice.note_returned(tmp_path)  # nobody gave notice: that is no matter
    assert notice.returned(tmp_path) == 0
    assert not notice.is_given(tmp_path)
    notice.give(tmp_path, 30.0)
    assert notice.is_given(tmp_path)
    notice.note_returned(tmp_path)
    notice.note_returned(tmp_path)
    assert notice.returned(tmp_path) == 2
    notice.clear(tmp_path)
    assert not notice.is_given(tmp_path)
    assert notice.returned(tmp_path) == 0
