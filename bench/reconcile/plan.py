"""How much is measured: rounds, fleets, kills, changes."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """`kills` of each contender; `tick_s` of ticks at each fleet size; `changes` that are waited for.

    `detect_in` is the size of the fleet in which they happen. Fleets of `once_from` machines or more take minutes a
    round, and are measured in the first round only.
    """

    rounds: int = 3
    machines: tuple[int, ...] = (100, 1_000, 10_000)
    once_from: int = 10_000
    gpus: int = 8
    tick_s: float = 4.0
    changed_ticks: int = 5
    kills: int = 30
    detect_in: int = 1_000
    changes: int = 60
    quiet_s: float = 2.0


FULL = Plan()
QUICK = Plan(rounds=1, tick_s=2.0, changed_ticks=3, kills=10, changes=20)
# Shows that everything works; its numbers say nothing.
SMOKE = Plan(
    rounds=1, machines=(3, 6), gpus=2, tick_s=0.1, changed_ticks=1, kills=1, detect_in=3, changes=2, quiet_s=0.1
)
