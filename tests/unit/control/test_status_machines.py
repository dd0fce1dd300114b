"""What `emp status` says of each machine that is desired or was seen."""

from __future__ import annotations

import pytest

from emp_orch.cli.inspect.status import machine_status
from emp_orch.control.status.inspect import Difference
from emp_orch.control.status.overview import reported
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import MachineId
from support.fleet.fleets import NOW_MS, look, report
from support.fleet.members import pool, pooled, wanted

FORGOTTEN = desired_machine(pooled(pool()), machine_of_member(pool(), MachineId("renders-7f3k")))


@pytest.mark.parametrize(
    ("ago_s", "words"),
    [(1, "ready, not in emp.yaml"), (60, "not running, not in emp.yaml")],
)
def test_a_box_that_is_no_member_any_more_runs_as_long_as_it_is_heard(ago_s: int, words: str) -> None:
    seen = report(FORGOTTEN, seen_ms=NOW_MS - ago_s * 1_000)
    found = Difference(
        fleet="f",
        generation=1,
        desired=wanted(),
        observed=look(machines={FORGOTTEN.id: seen}, workers={}, instances={}),
        drift=(),
        plan=(),
        leader="",
        paused="",
        status_age_ms=None,
        interval_ms=1_000,
    )
    (machine,) = reported(found, NOW_MS)
    assert machine_status(machine) == words
