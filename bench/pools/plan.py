"""How much is measured: members, jobs, churn, and for how long."""

from __future__ import annotations

from msgspec import Struct


class Plan(Struct, frozen=True, kw_only=True):
    """`jobs` come evenly over `minutes`, and run for `job_s` seconds, from–to. In each minute `churn` of the members
    join, as many leave in good order, and as many go silent. `page_s`: how long each view of the page is looked at in
    the midst of that; 0: not at all. `rush_s`: in which the first members join. `steady_s`:
    the same jobs a second without churn, in a pool and on named machines; 0 leaves both out.
    """

    members: int = 1_000
    jobs: int = 20_000
    churn: float = 0.01
    minutes: float = 5.0
    job_s: tuple[float, float] = (2.0, 12.0)
    rush_s: float = 30.0
    settle_s: float = 5.0
    steady_s: float = 60.0
    page_s: float = 10.0
    lease_s: int = 10
    forget_after_s: int = 30
    stale_after_s: int = 10

    @property
    def per_s(self) -> float:
        """Jobs that are submitted a second."""
        return self.jobs / (self.minutes * 60)


FULL = Plan()
QUICK = Plan(members=300, jobs=4_000, minutes=1.0, churn=0.02, rush_s=10.0, steady_s=20.0)
# Shows that everything works; its numbers say nothing.
SMOKE = Plan(
    members=20,
    jobs=200,
    churn=1.0,
    minutes=0.1,
    job_s=(0.1, 0.6),
    rush_s=1.0,
    settle_s=0.0,
    steady_s=2.0,
    page_s=0.2,
    lease_s=2,
    forget_after_s=4,
    stale_after_s=2,
)
