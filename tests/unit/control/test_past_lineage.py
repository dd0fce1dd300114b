"""Whether a generation that Redis has in force follows from the one that a folder was at."""

from __future__ import annotations

import pytest

from emp_orch.control.apply.earlier_generations import refuse_others
from emp_orch.errors import EmpError
from emp_orch.store.fleet.generations import KEPT, Generation
from support.fleet.fleets import fleet, machine


def _generation(number: int, at_ms: int = 5) -> Generation:
    return Generation(number=number, at_ms=at_ms, fleet=fleet([], machine("one")), digest="d")


KEPT_HERE = _generation(60)


@pytest.mark.parametrize(
    ("found", "now"),
    [
        pytest.param(_generation(60), _generation(60), id="the same"),
        pytest.param(_generation(63), _generation(60), id="a later one, by another host"),
        pytest.param(_generation(60 + KEPT), None, id="so much later that ours fell out"),
    ],
)
def test_it_follows(found: Generation, now: Generation | None) -> None:
    refuse_others(found, KEPT_HERE, now, "redis:6379/0")


@pytest.mark.parametrize(
    ("found", "now"),
    [
        pytest.param(_generation(60, at_ms=9), _generation(60, at_ms=9), id="another of that number"),
        pytest.param(_generation(63), _generation(60, at_ms=9), id="a later one of another line"),
        pytest.param(_generation(63), None, id="a later one without ours before it"),
        pytest.param(_generation(59), None, id="an older Redis"),
        pytest.param(_generation(59), _generation(60), id="set back"),
    ],
)
def test_it_does_not(found: Generation, now: Generation | None) -> None:
    with pytest.raises(EmpError, match="that is not this folder's, which was at 60"):
        refuse_others(found, KEPT_HERE, now, "redis:6379/0")
