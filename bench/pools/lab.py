"""One fleet with its members, its jobs and a meter: stretches of work are measured one after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from bench.pools import pages
from bench.pools.connector import RUNS
from bench.pools.crowd import Crowd
from bench.pools.fleets import UpFleet, up
from bench.pools.forgotten import Forgotten
from bench.pools.jobs import Jobs
from bench.pools.meter import Meter, Spent
from bench.pools.plan import Plan
from bench.reconcile.children import Failed
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys

Say = Callable[[str], None]


class Ends(Struct, frozen=True, kw_only=True):
    """What became of the jobs of one fleet: `once` ended exactly once by the events, `completed` by their records;
    `badly` by event. `requeued`: runs that went back. `missed`: how often events were cut before they were read.
    """

    submitted: int
    once: int
    completed: int
    badly: dict[str, int]
    requeued: int
    missed: int

    @property
    def whole(self) -> bool:
        return self.submitted == self.once == self.completed and not self.badly and not self.missed


class Stretch(Struct, frozen=True, kw_only=True):
    what: str
    members: int
    spent: Spent


class Lab:
    """`name`: what its stretches are called by."""

    def __init__(self, name: str, fleet: UpFleet, plan: Plan, folder: Path, say: Say) -> None:
        self.name, self.fleet, self.plan, self._say = name, fleet, plan, say
        self.r, self.keys = client(fleet.settings.redis_url), Keys(fleet.settings.prefix)
        self.crowd = Crowd(fleet, plan, folder)
        self.jobs = Jobs(fleet.api, plan, self.r, self.keys)
        self.forgotten = Forgotten(self.r, self.keys, fleet.settings.fleet, self.crowd)
        self.meter = Meter(fleet.settings.redis_url, fleet.pids())
        self.stretches: list[Stretch] = []
        self.pages: tuple[pages.Seen, ...] = ()

    @asynccontextmanager
    async def stretch(self, what: str) -> AsyncIterator[None]:
        before = self.meter.now(len(self.jobs.ended))
        yield
        spent = self.meter.since(before, len(self.jobs.ended))
        members = len(self.crowd.here)
        self.stretches.append(Stretch(what=f"{self.name}: {what}", members=members, spent=spent))
        self._say(f"{self.name}: {what}: {spent.wall_s:.0f} s, {members} members, {spent.jobs} jobs ended")

    async def steady(self) -> None:
        """All join, are idle, and work, without churn."""
        async with self.stretch("join"):
            await self.crowd.rush()
        await asyncio.sleep(self.plan.settle_s)
        if not self.plan.steady_s:
            return
        async with self.stretch("idle"):
            await asyncio.sleep(self.plan.steady_s / 2)
        async with self.stretch("jobs"):
            await self.jobs.submit(self.plan.steady_s)

    async def churn(self) -> None:
        seconds = self.plan.minutes * 60
        async with self.stretch("churn"), asyncio.TaskGroup() as group:
            group.create_task(self.jobs.submit(seconds))
            group.create_task(self.crowd.churn(seconds))
            if self.plan.page_s:
                group.create_task(self._look(seconds / 2))

    async def _look(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        self.pages = await asyncio.to_thread(pages.look, self.fleet.settings.monitor.url, self.plan.page_s)

    async def ends(self) -> Ends:
        """Once all jobs have ended, or will not any more."""
        jobs, plan = self.jobs, self.plan
        await jobs.all_ended(plan.job_s[1] * 2 + plan.lease_s * 4 + 60)
        return Ends(
            submitted=len(jobs.submitted),
            once=sum(count == 1 for count in jobs.ended.values()),
            completed=await jobs.completed(),
            badly=dict(jobs.badly),
            requeued=sum(jobs.requeued.values()),
            missed=jobs.missed,
        )


@asynccontextmanager
async def lab(name: str, plan: Plan, folder: Path, say: Say, *, pooled: bool) -> AsyncIterator[Lab]:
    """A fleet that is up, without members yet. Raises Failed."""
    RUNS.clear()
    with up(folder / name, plan, pooled=pooled) as fleet:
        made = Lab(name, fleet, plan, folder / f"{name}-boxes", say)
        beside = [asyncio.create_task(made.jobs.follow()), asyncio.create_task(made.forgotten.watch())]
        try:
            yield made
        finally:
            for task in beside:
                task.cancel()
            ended = await asyncio.gather(*beside, return_exceptions=True)
            await made.crowd.end()
            await made.r.aclose()
            made.meter.close()
        for e in ended:
            if isinstance(e, Exception):
                raise Failed(f"what counts beside the load ended: {type(e).__name__}: {e}") from e
