"""How large the fleet is, how much of it changes, and how long the page is looked at."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """`paints`: how often each view is opened anew. `differences`: so many machines have a program on its way."""

    machines: int = 1_000
    gpus: int = 8
    differences: int = 200
    per_s: int = 100
    paints: int = 5
    seconds: float = 15.0
    scroll_s: float = 6.0


FULL = Plan()
QUICK = Plan(paints=3, seconds=6.0, scroll_s=3.0)
# Shows that everything works; its numbers say nothing.
SMOKE = Plan(machines=50, gpus=2, differences=5, per_s=20, paints=1, seconds=1.0, scroll_s=0.5)
