"""Pools on engines that lie: whatever comes and goes, the invariants hold, every job ends once, and the size settles.

A failure names its history; EMP_SIM_SEED is the number of the history that is run again, with its minutes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from sim.pools.dice import history

MORE = int(os.environ.get("EMP_SIM_HISTORIES", "0"))
SEED = os.environ.get("EMP_SIM_SEED")
QUICK, CHUNKS, CHUNK = 12, 4, 50


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What thousands of rounds log is of no use to anybody."""
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
    return [range(QUICK + chunk * count, QUICK + (chunk + 1) * count) for chunk in range(CHUNKS)]


def test_pools_in_a_few_histories() -> None:
    _live(range(QUICK))


@pytest.mark.deep
@pytest.mark.parametrize("seeds", _chunks(), ids=str)
def test_whatever_comes_and_goes_the_invariants_of_pools_hold(seeds: range) -> None:
    _live(seeds)


def test_the_same_history_again_is_the_same() -> None:
    _, once = history(7)
    _, again = history(7)
    assert once.watch.log == again.watch.log
    assert once.watch.begun
