"""Thousands of histories of a fleet under fault, on the real fleet/ and control/: docs/simulation.md.

`EMP_SIM_SEED=N` lives through the one history N, `EMP_SIM_HISTORIES=N` through so many more than usual.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sim.dice import history
from sim.machine import Histories, counts

MORE = int(os.environ.get("EMP_SIM_HISTORIES", "0"))
SEED = os.environ.get("EMP_SIM_SEED")
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


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What a hundred thousand rounds log is of no use to anybody."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def _live(seeds: range) -> None:
    rounds = 0
    for seed in seeds:
        try:
            _, sim = history(seed)
        except AssertionError as e:
            raise AssertionError(f"history {seed} (again: EMP_SIM_SEED={seed}): {e}") from None
        rounds += sim.watch.rounds
    print(f"{len(seeds)} histories, {rounds} rounds")
    assert rounds > 10 * len(seeds)


def _chunks() -> list[range]:
    if SEED is not None:
        return [range(int(SEED), int(SEED) + 1)]
    count = CHUNK + MORE // CHUNKS
    return [range(chunk * count, (chunk + 1) * count) for chunk in range(CHUNKS)]


@pytest.mark.deep
@pytest.mark.parametrize("seeds", _chunks(), ids=str)
def test_whatever_the_dice_bring_the_invariants_hold(seeds: range) -> None:
    _live(seeds)


@pytest.mark.deep
def test_whatever_hypothesis_makes_of_it_the_invariants_hold() -> None:
    """Fewer, but what fails here is made small."""
    run_state_machine_as_test(Histories, settings=STATEFUL)
    print(f"{counts['histories']} histories, {counts['rounds']} rounds")
    assert counts["histories"] >= 100
