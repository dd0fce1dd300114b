"""Thousands of histories of a fleet under fault, on the real fleet/ and control/: docs/simulation.md.

`EMP_SIM_SEED=N` lives through the one history N, `EMP_SIM_HISTORIES=N` through so many more than usual.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sim.dice import history
from sim.histories import MORE, chunks, live
from sim.machine import Histories, counts

pytestmark = pytest.mark.usefixtures("quiet")
# Each its own test, so that they share the cores.
CHUNKS, CHUNK = 10, 200
STATEFUL = settings(
    max_examples=100 + MORE // 10,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.deep
@pytest.mark.parametrize("seeds", chunks(CHUNKS, CHUNK), ids=str)
def test_whatever_the_dice_bring_the_invariants_hold(seeds: range) -> None:
    live(history, seeds)


@pytest.mark.deep
def test_whatever_hypothesis_makes_of_it_the_invariants_hold() -> None:
    """Fewer, but what fails here is made small."""
    run_state_machine_as_test(Histories, settings=STATEFUL)
    print(f"{counts['histories']} histories, {counts['rounds']} rounds")
    assert counts["histories"] >= 100
