"""Generations of one small fleet of three pools, and no machine that anybody named.

`renders` runs jobs of `web`; `spare` those too, and alone those of `extra`, and costs more. Boxes of `guests` are
started by somebody else, and run `web` jobs as well, at a cost in between.
"""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.model.fleet import (
    Fleet,
    Pool,
    PoolName,
    PoolScale,
    ReconcileSpec,
    RolloutSpec,
    Scale,
    WorkerSpec,
)
from emp_orch.fleet.model.pools import JOIN
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.store.fleet.generations import Generation
from support.fleet.fleets import HEALTH, fleet, machine, service

LANES = ("web", "extra")
RENDERS, SPARE, GUESTS = PoolName("renders"), PoolName("spare"), PoolName("guests")
ENGINE = "sim"
START_MS = 1_000_000_000
UP_S, DOWN_S, FORGET_S = 6.0, 30.0, 90.0
DRAIN_S, STALE_S = 15.0, 10.0
_WORKERS = WorkerSpec(capabilities={}, drain_timeout_s=DRAIN_S, job_timeout_s=600.0)
_WEB = service("web", scale=Scale.PER_GPU, health=HEALTH, command=("serve",), connector="comfyui", port=8188)
_EXTRA = structs.replace(_WEB, name="extra", port=8299)
_COST = {RENDERS: 1.0, GUESTS: 2.0, SPARE: 3.0}


def pool(name: PoolName, least: int, most: int) -> Pool:
    services = ("web", "extra") if name == SPARE else ("web",)
    return Pool(
        name=name,
        provider=JOIN if name == GUESTS else ENGINE,
        min_size=least,
        max_size=most,
        template=machine(
            "", services=services, runtime=RuntimeKind.EXTERNAL, worker=_WORKERS, origin=f"emp.yaml:{name}"
        ),
        scale=PoolScale(jobs_per_gpu=1.0, up_after_s=UP_S, down_after_s=DOWN_S),
        forget_after_s=FORGET_S,
        cost=_COST[name],
        options={},
        origin=f"emp.yaml:{name}",
    )


def any_fleet(*, renders: tuple[int, int] = (0, 4), spare: tuple[int, int] = (0, 2), command: str = "serve") -> Fleet:
    """`renders` and `spare`: least and most members."""
    bare = fleet([structs.replace(_WEB, command=(command,)), structs.replace(_EXTRA, command=(command,))])
    rollout = RolloutSpec(min_healthy_s=4.0, progress_deadline_s=120.0, rollback=False)
    spec: ReconcileSpec = structs.replace(bare.reconcile, rollout=rollout, stale_after_s=STALE_S)
    pools = (pool(RENDERS, *renders), pool(SPARE, *spare), pool(GUESTS, 0, 3))
    return structs.replace(bare, reconcile=spec, pools={p.name: p for p in pools})


def generation(number: int, of: Fleet) -> Generation:
    return Generation(number=number, at_ms=START_MS, fleet=of, digest=f"{number}")
