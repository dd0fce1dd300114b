"""A run's mark in the names of its files: put in without harm, taken out again, read in what comes back."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.connectors.comfyui.run.isolation import Marks, mark_of, marked, marks_in, owner, plain, prefix_marked

MARK = mark_of("run 1")


@pytest.mark.parametrize(
    ("prefix", "sent"),
    [
        ("ComfyUI", f"{MARK}ComfyUI"),
        ("sub/name", f"sub/{MARK}name"),
        ("a/b/%date%name", f"a/b/{MARK}%date%name"),
        ("%year%/%width%x", f"%year%/{MARK}%width%x"),
        ("day_%date:yyyy/MM%_x", f"{MARK}day_%date:yyyy/MM%_x"),
        ("sub/", f"{MARK}sub/"),
        ("", MARK),
        ("100%/x", f"100%/{MARK}x"),
        (f"sub/{mark_of('an earlier run')}name", f"sub/{MARK}name"),
        ("n" * 200, "n" * 200),
    ],
)
def test_the_mark_stands_before_the_name_and_folders_stay(prefix: str, sent: str) -> None:
    assert prefix_marked(prefix, MARK) == sent


@given(st.text(alphabet="ab/%.é_", max_size=40))
def test_the_file_that_comes_of_it_bears_the_plain_name_in_the_same_folder(prefix: str) -> None:
    """As ComfyUI takes a prefix apart: normpath, then folder and name."""
    sent = posixpath.normpath(prefix_marked(prefix, MARK))
    if "%" in prefix or posixpath.basename(prefix.rstrip("/")) in ("", ".", ".."):
        return  # no name, or one that is filled in before
    before = posixpath.normpath(prefix)
    assert posixpath.dirname(sent) == posixpath.dirname(before)
    assert plain(posixpath.basename(sent)) == posixpath.basename(before)


def test_every_literal_prefix_of_a_workflow_is_marked_and_nothing_else() -> None:
    workflow: dict[str, Any] = {
        "1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "a", "images": ["9", 0]}},
        "2": {"class_type": "VHS_VideoCombine", "inputs": {"filename_prefix": "video/b", "format": "h264"}},
        "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["8", 0]}},
        "4": {"class_type": "Note"},
        "5": "no node",
    }
    sent = marked(workflow, MARK)
    assert sent["1"]["inputs"] == {"filename_prefix": f"{MARK}a", "images": ["9", 0]}
    assert sent["2"]["inputs"]["filename_prefix"] == f"video/{MARK}b"
    assert {k: sent[k] for k in "345"} == {k: workflow[k] for k in "345"}
    assert workflow["1"]["inputs"]["filename_prefix"] == "a"


def test_a_workflow_without_a_literal_prefix_bears_the_mark_beside_a_node() -> None:
    linked = {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": ["2", 0]}, "_meta": {"title": "Save"}}}
    assert marked(linked, MARK)["1"] == {**linked["1"], "_meta": {"title": "Save", "emp": MARK}}
    assert marks_in(marked(linked, MARK)) == {MARK}
    assert marked({}, MARK) == {}


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_mark_is_read_wherever_the_chunks_are_cut(cut: int) -> None:
    data, marks = b"\x89PNG" + MARK.encode() + b"name" + mark_of("other").encode(), Marks()
    for at in range(0, len(data), cut):
        marks.see(data[at : at + cut])
    assert marks.found == {MARK, mark_of("other")}


def test_whose_a_file_is() -> None:
    other, mentioned = mark_of("other"), mark_of("mentioned")
    assert owner([], MARK, frozenset()) is None
    assert owner([other, MARK], MARK, frozenset()) == MARK
    assert owner([other], MARK, frozenset()) == other
    # A workflow taken from an older picture speaks of that picture's run.
    assert owner([mentioned], MARK, frozenset({mentioned})) is None


def test_a_file_full_of_marks_fills_no_memory() -> None:
    marks = Marks()
    for i in range(40):
        marks.see(b"".join(mark_of(f"{i} {j}").encode() for j in range(500)))
    assert len(marks.found) <= 2_000
