"""Pools on engines that lie: whatever comes and goes, the invariants hold, every job ends once, and the size settles.

A failure names its history; EMP_SIM_SEED is the number of the history that is run again, with its minutes.
"""

from __future__ import annotations

import pytest

from sim.histories import chunks, live
from sim.pools.dice import history

pytestmark = pytest.mark.usefixtures("quiet")
QUICK, CHUNKS, CHUNK = 12, 4, 50


def test_pools_in_a_few_histories() -> None:
    live(history, range(QUICK))


@pytest.mark.deep
@pytest.mark.parametrize("seeds", chunks(CHUNKS, CHUNK, QUICK), ids=str)
def test_whatever_comes_and_goes_the_invariants_of_pools_hold(seeds: range) -> None:
    live(history, seeds)


def test_the_same_history_again_is_the_same() -> None:
    _, once = history(7)
    _, again = history(7)
    assert once.watch.log == again.watch.log
    assert once.watch.begun
