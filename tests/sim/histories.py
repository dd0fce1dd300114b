"""Lives through histories one after the other, for the tests of both simulations.

`EMP_SIM_SEED=N` lives through the one history N, `EMP_SIM_HISTORIES=N` through so many more than usual.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

MORE = int(os.environ.get("EMP_SIM_HISTORIES", "0"))
SEED = os.environ.get("EMP_SIM_SEED")


class _Watch(Protocol):
    rounds: int


class Lived(Protocol):
    """What a history leaves: its watch counted the rounds."""

    @property
    def watch(self) -> _Watch: ...


def live(history: Callable[[int], tuple[int, Lived]], seeds: range) -> None:
    """Each of `seeds`. Raises AssertionError that names the one that broke an invariant."""
    rounds = 0
    for seed in seeds:
        try:
            _, sim = history(seed)
        except AssertionError as e:
            raise AssertionError(f"history {seed} (again: EMP_SIM_SEED={seed}): {e}") from None
        rounds += sim.watch.rounds
    print(f"{len(seeds)} histories, {rounds} rounds")
    assert rounds > 10 * len(seeds)


def chunks(chunks: int, size: int, first: int = 0) -> list[range]:
    """Seeds from `first` on, `size` a chunk and a share of MORE; of SEED alone where that is set."""
    if SEED is not None:
        return [range(int(SEED), int(SEED) + 1)]
    count = size + MORE // chunks
    return [range(first + chunk * count, first + (chunk + 1) * count) for chunk in range(chunks)]
