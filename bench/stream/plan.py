"""How much is measured: the fleet, the clients, changes a second, and for how long."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """`few` clients are what sending everything to each can be measured with; emp is then measured with so many too.

    `proxied` clients listen through the monitor's server.
    """

    machines: int = 1_000
    gpus: int = 8
    clients: int = 500
    few: int = 10
    proxied: int = 100
    per_s: int = 100
    seconds: float = 20.0
    settle_s: float = 2.0


FULL = Plan()
QUICK = Plan(seconds=6.0)
# Shows that everything works; its numbers say nothing. No more changes than workers: of two of one, one is told.
SMOKE = Plan(machines=10, gpus=2, clients=20, few=3, proxied=3, per_s=20, seconds=1.0, settle_s=0.1)
