"""How long a service is occupied by somebody else, and whether that is more than passing."""

from __future__ import annotations

import pytest

from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, Occupant
from emp_orch.worker.services.occupancy import FOREIGN_S, Occupied

TIMEOUT_S = 600.0


def by(words: str, occupant: Occupant | None) -> ConnectorReport:
    return ConnectorReport(status=ConnectorStatus.IDLE, occupied_by=words, occupant=occupant)


FREE = ConnectorReport(status=ConnectorStatus.IDLE)


@pytest.mark.parametrize(
    ("occupant", "after_s", "told"),
    [
        (Occupant.STUCK, 0.0, Occupant.STUCK),
        (Occupant.FOREIGN, FOREIGN_S - 1, None),
        (Occupant.FOREIGN, FOREIGN_S, Occupant.FOREIGN),
        (None, FOREIGN_S, Occupant.FOREIGN),
        (Occupant.RUN, TIMEOUT_S - 1, None),
        (Occupant.RUN, TIMEOUT_S, Occupant.STUCK),
    ],
)
def test_who_is_told_when_it_is_more_than_passing(
    occupant: Occupant | None, after_s: float, told: Occupant | None
) -> None:
    occupied = Occupied(TIMEOUT_S)
    occupied.judged("s", by("p", occupant), 100.0)
    assert occupied.judged("s", by("p", occupant), 100.0 + after_s).occupant is told


def test_a_strangers_prompts_follow_each_other_and_another_jobs_run_begins_anew() -> None:
    occupied = Occupied(TIMEOUT_S)
    occupied.judged("s", by("p1", Occupant.FOREIGN), 0.0)
    assert occupied.judged("s", by("p2", Occupant.FOREIGN), FOREIGN_S).occupant is Occupant.FOREIGN
    occupied.judged("s", by("p of j1", Occupant.RUN), 100.0)
    assert occupied.judged("s", by("p of j2", Occupant.RUN), 100.0 + TIMEOUT_S).occupant is None


def test_since_when_is_said_by_redis_clock_once() -> None:
    occupied = Occupied(TIMEOUT_S)
    assert occupied.judged("s", by("p", Occupant.STUCK), 0.0).occupied_ms == 0 and occupied.undated
    assert occupied.date(5_000) == ("s",)
    assert occupied.judged("s", by("p", Occupant.STUCK), 1.0).occupied_ms == 5_000 and not occupied.undated
    assert occupied.judged("s", FREE, 2.0) == FREE and not occupied.undated  # type: ignore[unreachable]
