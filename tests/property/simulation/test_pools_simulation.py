"""Pools on engines that lie: whatever comes and goes, the invariants hold, every job ends once, and the size settles.

A failure names its history; EMP_SIM_SEED is the number of the history that is run again, with its minutes.
"""

from __future__ import annotations

import pytest

from sim.histories import chunks, live
from sim.pools.dice import history
from sim.pools.simulation import PoolSimulation

pytestmark = pytest.mark.usefixtures("quiet")
QUICK, CHUNKS, CHUNK = 12, 4, 50


def test_pools_in_a_few_histories_and_in_some_the_cheapest_gets_no_boxes() -> None:
    """Where jobs are handed on, all of them go back before the end."""
    handed: list[int] = []

    def lived(seed: int) -> tuple[int, PoolSimulation]:
        took_s, sim = history(seed)
        if sim.watch.handing.on:
            assert sim.watch.handing.back, f"what history {seed} handed on did not go back"
            handed.append(seed)
        return took_s, sim

    live(lived, range(QUICK))
    assert len(handed) >= QUICK // 4, f"jobs were handed on in {handed} only"


@pytest.mark.deep
@pytest.mark.parametrize("seeds", chunks(CHUNKS, CHUNK, QUICK), ids=str)
def test_whatever_comes_and_goes_the_invariants_of_pools_hold(seeds: range) -> None:
    live(history, seeds)


def test_the_same_history_again_is_the_same() -> None:
    _, once = history(7)
    _, again = history(7)
    assert once.watch.log == again.watch.log
    assert once.watch.begun
