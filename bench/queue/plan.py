"""How much is measured: rounds and counts."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """`jobs` is a factor on each peer's own count. The idle rate is a count, so one round of it is enough."""

    rounds: int = 3
    jobs: float = 1.0
    paced: int = 250
    idle_s: float = 10.0
    claims: int = 200
    backlog: int = 100_000
    lanes: int = 1_000
    limit: float = 1.0


FULL = Plan()
QUICK = Plan(rounds=1, jobs=0.5, paced=120, idle_s=3.0, claims=100, backlog=20_000, lanes=1_000, limit=0.3)
# Shows that everything works; its numbers say nothing.
SMOKE = Plan(rounds=1, jobs=0.02, paced=10, idle_s=0.5, claims=5, backlog=60, lanes=6, limit=0.01)
