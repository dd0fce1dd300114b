"""How long a box leaves an API alone that told it to wait."""

from __future__ import annotations

import pytest

from emp_orch.machine.agent.patience import LEAST_WAIT_S, MOST_WAIT_S, SPREAD, Patience


def waited(patience: Patience, after: str, *, jitter: float = 0.0, now_s: float = 1_000.0) -> float:
    """Until when it waits, in whole eighths of a second."""
    patience.told_to_wait(after, now_s, jitter)
    steps = 0
    while patience.waits(now_s + steps / 8):
        steps += 1
    return steps / 8


@pytest.mark.parametrize(
    ("after", "wait_s"),
    [
        ("5", 5),
        ("1", 1),
        ("60", 60),
        ("61", MOST_WAIT_S),
        ("999999999", MOST_WAIT_S),
        ("5" * 400, LEAST_WAIT_S),
        ("0", LEAST_WAIT_S),
    ],
)
def test_it_waits_as_it_was_told_within_bounds(after: str, wait_s: float) -> None:
    assert waited(Patience(), after) == wait_s


@pytest.mark.parametrize("after", ["", "-1", "1.5", "nan", "٣", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_told_nothing_it_waits_twice_as_long_each_time(after: str) -> None:
    patience, now_s, waits = Patience(), 0.0, []
    for _ in range(8):
        waits.append(waited(patience, after, now_s=now_s))
        now_s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    patience.let_in()
    assert waited(patience, after, now_s=now_s) == 1


def test_those_that_were_turned_away_together_do_not_come_together() -> None:
    assert waited(Patience(), "8", jitter=1.0) == 8 * (1 + SPREAD)
    assert waited(Patience(), "", jitter=1.0) == LEAST_WAIT_S * (1 + SPREAD)


def test_answers_to_what_was_asked_at_once_are_one_try_and_shorten_nothing() -> None:
    patience = Patience()
    patience.told_to_wait("30", 0.0, 0.0)
    for _ in range(10):
        patience.told_to_wait("", 0.0, 0.0)
        patience.told_to_wait("2", 0.0, 0.0)
    assert patience.waits(29.9) and not patience.waits(30.0)
    assert waited(patience, "", now_s=30.0) == 2


def test_who_was_never_told_does_not_wait() -> None:
    assert not Patience().waits(0.0)
