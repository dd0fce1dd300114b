"""How a pool fared over the last day is bounded, in order, and keeps what matters: the peaks and how it ended."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from emp_orch.fleet.pools.course import MAX_POINTS, STEADY_MS, Point, holds_together, noted, thinned

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def point(at_s: float, waiting: int = 0, there: int = 0) -> Point:
    return Point(int(at_s * 1000), waiting, 0, there, 0)


def of(*points: Point) -> tuple[Point, ...]:
    course: tuple[Point, ...] = ()
    for one in points:
        course = noted(course, one)
    return course


def test_a_point_is_noted_where_something_changed_and_not_each_second() -> None:
    found = of(*(point(s, waiting=s // 25) for s in range(60)))
    assert [(p.at_ms, p.waiting) for p in found] == [(0, 0), (25_000, 1), (50_000, 2)]
    assert noted(found, point(55, waiting=9)) is found  # ten seconds after the last
    assert noted(found, point(60, waiting=9))[-1].waiting == 9


def test_where_nothing_changes_a_point_now_and_then_says_that_somebody_looked() -> None:
    found = of(*(point(s) for s in range(0, 3_600, 5)))
    assert {b.at_ms - a.at_ms for a, b in pairwise(found)} == {STEADY_MS}


def test_of_what_lies_back_a_peak_stays_and_how_it_ended() -> None:
    busy = [point(s, waiting=500 if s == 3_660 else 1 + s // 10 % 2) for s in range(3_600, 3_720, 10)]
    found = of(*busy, point(5 * 3_600))
    assert [(p.at_ms // 1000, p.waiting) for p in found] == [(3_660, 500), (3_710, 2), (18_000, 0)]


def test_a_day_later_it_is_forgotten() -> None:
    assert of(point(10, waiting=3), point(10 + DAY_MS / 1000)) == (point(10 + DAY_MS / 1000),)


def test_a_clock_that_is_set_back_leaves_no_time_to_come() -> None:
    found = of(point(100, waiting=1), point(200, waiting=2), point(150, waiting=3))
    assert [(p.at_ms, p.waiting) for p in found] == [(100_000, 1), (150_000, 3)]


steps = st.lists(st.tuples(st.integers(1, 3_000), st.integers(0, 3), st.integers(0, 3)), max_size=60)


@given(steps)
def test_it_is_in_order_bounded_and_ends_with_what_was_last_noted(found: list[tuple[int, int, int]]) -> None:
    at_s = 0
    course: tuple[Point, ...] = ()
    last: Point | None = None
    for after_s, waiting, there in found:
        at_s += after_s
        before, course = course, noted(course, point(at_s, waiting, there))
        if course is not before:
            last = point(at_s, waiting, there)
    assert holds_together(course)
    assert (course[-1] if course else None) == last
    assert thinned(course, at_s * 1000) == course


def test_two_days_of_change_each_ten_seconds_are_a_few_hundred_points() -> None:
    found = of(*(point(s, waiting=s // 10 % 7, there=s // 30 % 5) for s in range(0, 2 * DAY_MS // 1000, 10)))
    assert 200 < len(found) < MAX_POINTS  # the bound is never what shortens it
    assert holds_together(found)
    assert not holds_together((*found, found[-1]))
    assert not holds_together(tuple(point(s) for s in range(MAX_POINTS + 1)))
