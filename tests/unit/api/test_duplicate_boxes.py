"""Two boxes and one machine's token: who lives, who asks → whether it is let in, and what it is told."""

from __future__ import annotations

import pytest

from emp_orch.api.duplicate_boxes import Boxes, refuse_second
from emp_orch.store.acl.joining import Asking
from emp_orch.web.errors import Refused
from support.fleet.fleets import one, report

A, B = "a" * 32, "b" * 32
MINE, OTHER, OLD = Asking(box=A, host="here"), Asking(box=B, host="there"), Asking()


def said(asking: Asking, *, living: str | None = None, boxes: Boxes | None = None, now_s: float = 0.0) -> str:
    """What keeps `asking` out; empty when nothing does. `living`: the box of a report that is two seconds old."""
    heard = None if living is None else (report(one([]), box=living, host="gpu\n7", boot_id="41-9"), 2.0)
    let_in = boxes.other("m", asking, now_s, 10.0) if boxes else ""
    try:
        refuse_second("m", asking, heard, let_in, 10.0)
    except Refused as e:
        assert e.status == 409
        assert e.hint == "where it is gone with its folder, the next is let in 10 s after its last word"
        return e.message
    return ""


def test_another_box_that_lives_is_named() -> None:
    assert said(OTHER, living=A) == (
        "m is joined by another box: gpu\\n7, boot 41-9, heard 2 s ago; stop that one, or take another machine's line "
        "(`emp machine join`)"
    )


@pytest.mark.parametrize(
    ("asking", "living"),
    [
        pytest.param(MINE, A, id="its own folder again"),
        pytest.param(MINE, None, id="nobody lives"),
        pytest.param(OLD, A, id="an older emp asks"),
        pytest.param(MINE, "", id="an older emp lives"),
    ],
)
def test_who_is_let_in(asking: Asking, living: str | None) -> None:
    assert said(asking, living=living) == ""


def test_one_that_was_let_in_counts_before_its_first_report() -> None:
    boxes = Boxes()
    boxes.let_in("m", OLD, 90.0)
    assert said(MINE, boxes=boxes, now_s=91.0) == ""
    boxes.let_in("m", MINE, 100.0)
    assert "another box: here, let in 3 s ago;" in said(OTHER, boxes=boxes, now_s=103.0)
    assert said(MINE, boxes=boxes, now_s=103.0) == ""
    assert said(OTHER, boxes=boxes, now_s=110.0) == ""
    assert said(OTHER, living=B, boxes=boxes, now_s=103.0) == "", "a report says more"
