"""The members that are there: they come evenly over some seconds, and some come, leave and vanish in each minute."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from msgspec import Struct

from bench.pools.connector import RUNS
from bench.pools.fleets import UpFleet
from bench.pools.members import Member
from bench.pools.plan import Plan
from bench.queue.measure import quantile
from bench.reconcile.children import Failed
from emp_orch.errors import EmpError, Unreachable
from emp_orch.machine.boot.join import Invitation
from emp_orch.store.redis.client import TRANSIENT


class Gone(Struct, frozen=True, kw_only=True):
    """A member that went, when by the monotonic clock, and the job that it held."""

    machine_id: str
    at_s: float
    held: str = ""


class Crowd:
    """The members of one fleet."""

    def __init__(self, fleet: UpFleet, plan: Plan, folder: Path) -> None:
        self._fleet = fleet
        self._plan = plan
        self._folder = folder
        self._chance = random.Random(7)
        self._count = 0
        self._token = fleet.pool_token() if fleet.pooled else ""
        self.here: dict[str, Member] = {}
        self.waits_s: list[float] = []
        self.again = 0  # starts that found the API away
        self.joined = 0
        self.left: list[Gone] = []
        self.vanished: list[Gone] = []
        self.faults: list[str] = []

    async def _one(self, machine_id: str = "") -> None:
        self._count += 1
        token = self._fleet.machine_token(machine_id) if machine_id else self._token
        root = self._folder / f"b{self._count}"
        invitation = Invitation(api=self._fleet.api, token=token)
        member = Member(root, self._plan, invitation, machine_id)
        while True:
            try:
                await member.start()
                break
            except Unreachable:  # whoever starts boxes starts them again
                self.again += 1
        self.here[member.id] = member
        self.waits_s.append(member.joined_s)

    async def rush(self) -> None:
        """All join, evenly. Raises Failed."""
        names = self._fleet.machines or ("",) * self._plan.members

        async def later(number: int, machine_id: str) -> None:
            await asyncio.sleep(number * self._plan.rush_s / len(names))
            await self._one(machine_id)

        try:
            async with asyncio.TaskGroup() as group:
                for number, machine_id in enumerate(names):
                    group.create_task(later(number, machine_id))
        except* EmpError as e:
            raise Failed(f"a box is not let in: {e.exceptions[0]}") from e

    async def churn(self, seconds: float) -> None:
        """For so long, in each minute the plan's share joins, leaves and vanishes, evenly."""
        each = max(1, round(self._plan.members * self._plan.churn * seconds / 60))
        async with asyncio.TaskGroup() as group:
            for number in range(each):
                group.create_task(self._thirds(number * seconds / each, seconds / each))

    async def _thirds(self, after_s: float, within_s: float) -> None:
        await asyncio.sleep(after_s)
        for act in (self._join, self._leave, self._vanish):
            try:
                await act()
            except (EmpError, *TRANSIENT) as e:
                self.faults.append(f"{act.__name__}: {e}")
            await asyncio.sleep(within_s / 4)

    async def _join(self) -> None:
        await self._one()
        self.joined += 1

    async def _leave(self) -> None:
        member = self._taken(lambda _: True)
        await member.leave()
        self.left.append(Gone(machine_id=member.id, at_s=time.monotonic()))

    async def _vanish(self) -> None:
        """One that holds a job, where there is one."""
        member = self._taken(lambda m: bool(m.holds))
        gone = Gone(machine_id=member.id, at_s=time.monotonic(), held=member.holds)
        self.vanished.append(gone)
        await member.vanish()

    def _taken(self, fits: Callable[[Member], bool]) -> Member:
        some: Iterable[Member] = [m for m in self.here.values() if fits(m)] or self.here.values()
        return self.here.pop(self._chance.choice([m.id for m in some]))

    async def end(self) -> None:
        """All go at once, without a word."""
        members, self.here = list(self.here.values()), {}
        await asyncio.gather(*(m.vanish() for m in members), return_exceptions=True)

    def wait_ms(self, share: float) -> float:
        return quantile(sorted(self.waits_s), share) * 1_000

    def again_s(self) -> list[float]:
        """From a member's vanishing until the job that it held began elsewhere, of each such job, in order."""
        found = []
        for gone in self.vanished:
            later = [at for at in RUNS.began_s.get(gone.held, ()) if at > gone.at_s]
            found += [min(later) - gone.at_s] if later else []
        return sorted(found)
