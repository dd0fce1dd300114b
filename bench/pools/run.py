"""One run: a pool that is joined, works, and churns; then the same work on machines that emp.yaml names."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import redis
from msgspec import Struct

from bench.pools import connector, leftovers
from bench.pools.lab import Ends, Lab, Say, Stretch, lab
from bench.pools.meter import Memory
from bench.pools.pages import Seen
from bench.pools.plan import Plan
from bench.queue.report import Machine, measured_on
from emp_orch import openfiles
from emp_orch.host import loops

POOL, NAMED = "pool", "named"
# In which all is gone that names members that were forgotten.
CLEAN_S = 60.0


class Churned(Struct, frozen=True, kw_only=True):
    """Who came and went. `again_s`: from a member's vanishing until its job began elsewhere. `forgotten_s`: until it
    was no member any more. `left_over`: what Redis holds of members that are none any more, `left_s` after the last was
    forgotten.
    """

    joined: int
    left: int
    vanished: int
    held: int
    faults: tuple[str, ...]
    again_s: tuple[float, ...]
    forgotten_s: tuple[float, ...]
    left_over: tuple[str, ...]
    left_s: float


class Report(Struct, frozen=True, kw_only=True):
    """`memory` by when; `keys` at the end by the first word of their names; `join_ms` p50, p95 and most."""

    plan: Plan
    machine: Machine
    stretches: tuple[Stretch, ...]
    join_ms: dict[str, tuple[float, float, float]]
    ends: dict[str, Ends]
    churned: Churned
    memory: dict[str, Memory]
    keys: dict[str, int]
    pages: tuple[Seen, ...]

    @property
    def whole(self) -> bool:
        """Nothing lost, nothing twice, nobody turned away, and nothing left of who is gone."""
        return all(e.whole for e in self.ends.values()) and not self.churned.faults and not self.churned.left_over


def run(plan: Plan, say: Say) -> Report:
    """Raises Failed."""
    folder = Path(tempfile.mkdtemp(prefix="emp-bench-"))
    logging.basicConfig(filename=folder / "members.log", level=logging.WARNING)
    openfiles.raise_soft()
    connector.install(folder / "connector")
    try:
        return loops.run(_measured(plan, folder, say))
    finally:
        shutil.rmtree(folder)


async def _measured(plan: Plan, folder: Path, say: Say) -> Report:
    before = os.getloadavg()
    memory: dict[str, Memory] = {}
    async with lab(POOL, plan, folder, say, pooled=True) as pool:
        version = pool.meter.version()
        memory["pool: nobody there"] = pool.meter.memory()
        await pool.steady()
        memory["pool: all joined"] = pool.meter.memory()
        await pool.churn()
        ends = {POOL: await pool.ends()}
        churned, keys = await _churned(pool)
        memory["pool: after the churn"] = pool.meter.memory()
    stretches, joined = list(pool.stretches), {POOL: _joins(pool)}
    if plan.steady_s:
        async with lab(NAMED, plan, folder, say, pooled=False) as named:
            await named.steady()
            memory["named: all joined"] = named.meter.memory()
            ends[NAMED] = await named.ends()
        stretches += named.stretches
        joined[NAMED] = _joins(named)
    return Report(
        plan=plan,
        machine=measured_on(version, before, None),
        stretches=tuple(stretches),
        join_ms=joined,
        ends=ends,
        churned=churned,
        memory=memory,
        keys=keys,
        pages=pool.pages,
    )


def _joins(of: Lab) -> tuple[float, float, float]:
    return of.crowd.wait_ms(0.5), of.crowd.wait_ms(0.95), of.crowd.wait_ms(1.0)


async def _churned(pool: Lab) -> tuple[Churned, dict[str, int]]:
    """Once all who went are forgotten. Raises Failed."""
    crowd = pool.crowd
    await pool.forgotten.all(pool.plan.forget_after_s * 2 + 60)
    began = time.monotonic()
    with redis.Redis.from_url(pool.fleet.settings.redis_url, decode_responses=True) as r:
        while left_over := await asyncio.to_thread(leftovers.of_forgotten, r, set(crowd.here)):
            if time.monotonic() - began > CLEAN_S:
                break
            await asyncio.sleep(1)
        left_s = time.monotonic() - began
        keys = await asyncio.to_thread(leftovers.by_kind, r)
    churned = Churned(
        joined=crowd.joined,
        left=len(crowd.left),
        vanished=len(crowd.vanished),
        held=sum(bool(gone.held) for gone in crowd.vanished),
        faults=tuple(crowd.faults),
        again_s=tuple(crowd.again_s()),
        forgotten_s=tuple(pool.forgotten.took_s()),
        left_over=tuple(left_over),
        left_s=left_s,
    )
    return churned, keys
