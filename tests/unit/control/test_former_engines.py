"""A pool as its engine and those that it had before show it."""

from __future__ import annotations

import pytest

from emp_orch.control.pools.former import APPEARS_S, Looked, is_over, joined
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.pools import Box, BoxState, SeenPool

A, B, C = MachineId("renders-a"), MachineId("renders-b"), MachineId("renders-c")


def look(at_s: float, *members: MachineId, error: str = "") -> Looked:
    boxes = tuple(Box(member_id=i, state=BoxState.RUNNING) for i in members)
    return Looked(seen=SeenPool(boxes=None if error else boxes, error=error), began_s=at_s, ended_s=at_s + 0.5)


def states(seen: SeenPool) -> dict[MachineId, str]:
    return {box.member_id: str(box.state) for box in seen.boxes or ()}


def test_without_a_former_engine_it_is_what_its_engine_shows() -> None:
    assert joined(look(1, A), [], (), {})[0] == look(1, A).seen
    assert joined(None, [], (), {})[0] == SeenPool()


def test_a_box_is_at_a_former_engine_once_the_one_of_now_was_looked_at_since_and_has_it_not() -> None:
    seen, since = joined(look(1, C), [look(1, A, C)], (), {})
    assert (states(seen), seen.former) == ({A: "running", C: "running"}, ())
    seen, since = joined(look(4, C), [look(4.2, A, C)], (), since)
    assert seen.former == (A,)
    seen, since = joined(look(4, C), [look(7, A, B, C)], (), since)  # B may have come since
    assert seen.former == (A,)
    seen, since = joined(look(8, B, C), [look(7, A, B, C)], (), since)
    assert seen.former == (A,)
    assert set(since) == {A}


def test_where_the_engine_of_now_says_nothing_nobody_is_at_a_former_one() -> None:
    seen, since = joined(look(9, error="away"), [look(1, A)], [A], {A: 1.0})
    assert (seen, since) == (SeenPool(error="away"), {})


def test_of_who_may_be_at_a_former_engine_that_says_nothing_nothing_is_known() -> None:
    seen, _ = joined(look(9, B), [look(1, error="away")], [A, B], {})
    assert (states(seen), seen.former, seen.error) == ({A: "unknown", B: "running"}, (), "its former engine: away")


def test_who_was_started_by_somebody_else_has_no_box_and_is_not_gone_for_that() -> None:
    seen, _ = joined(None, [look(1, A)], [A, B], {})
    assert (states(seen), seen.former) == ({A: "running", B: "unknown"}, (A,))


@pytest.mark.parametrize(
    ("now", "former", "over"),
    [
        (look(100), look(100), True),
        (look(100, A, B), look(100, A), True),
        (look(100, B), look(100, A), False),
        (look(100), look(APPEARS_S - 1), False),
        (look(100, error="away"), look(100), False),
        (look(100), look(100, error="away"), False),
        (None, look(100), True),
        (None, look(100, A), False),
    ],
)
def test_a_former_engine_is_over_when_it_has_nothing_of_its_own(now: Looked | None, former: Looked, over: bool) -> None:
    assert is_over(now, former, 0.0) is over
