"""A fleet with a pool for tests of the API and the page: boxes join over HTTP, a leader says how the pool stands."""

from __future__ import annotations

from typing import Any

import aiohttp
from msgspec import structs

from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, Pool, PoolName
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.pools.course import Point, noted
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.fleet.pools.courses import write_courses
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.redis.client import time_ms
from support.fleet.pools import pool as pool_of
from support.http.stack import FLEET, Producer, Stack, fleet_of

RENDERS = PoolName("renders")
# Minutes ago, and from then on: jobs waiting and running, members there and wanted.
WAVE = (
    *(
        (60, 0, 0, 0, 0),
        (55, 9, 0, 1, 5),
        (52, 30, 4, 4, 12),
        (48, 26, 6, 6, 12),
        (44, 20, 8, 8, 12),
        (40, 12, 9, 9, 12),
    ),
    *((36, 6, 10, 10, 11), (32, 1, 9, 10, 10), (28, 0, 7, 10, 9), (24, 0, 4, 8, 6), (20, 0, 2, 5, 3), (16, 0, 1, 3, 2)),
    *((12, 1, 1, 2, 2), (8, 2, 1, 2, 3), (4, 3, 2, 3, 5), (1, 3, 2, 4, 5)),
)


class PoolScene:
    """The fleet `m1` and a pool `renders` of 0 to 40 boxes with one GPU."""

    def __init__(self, stack: Stack, producer: Producer) -> None:
        self.stack, self.producer = stack, producer
        self.tokens = JoinTokens(stack.layout)
        self.members = Members(producer.redis, producer.keys, FLEET, lambda: producer.seal)
        self.plain = plain = fleet_of("m1")
        template = structs.replace(plain.machines[0], id=MachineId(""), runtime=RuntimeKind.EXTERNAL, num_gpus=1)
        self.pool: Pool = pool_of(RENDERS, template=template, provider="join")
        self.fleet: Fleet = structs.replace(plain, pools={RENDERS: self.pool})

    async def apply(self) -> None:
        await self.producer.apply(self.fleet)
        await self.producer.machine(self.fleet, "m1")

    async def join(self, name: str, *, reports: bool = True) -> tuple[str, str]:
        """A box of that name joins; its id and its token."""
        token = self.tokens.pool_token(FLEET, RENDERS, expires_s=None)
        said = await self._ask(token, "join", {"box": (name * 32).encode().hex()[:32], "host": "gpu-1", "name": name})
        if reports:
            await self.report(said["machine_id"])
        return said["machine_id"], said["token"]

    async def leave(self, token: str, *, why: str = "its time is over", returned: int = 1) -> None:
        await self._ask(token, "leave", {"why": why, "returned": returned})

    async def _ask(self, token: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.post(f"{self.stack.api}/api/pools/{RENDERS}/{what}", json=body) as answer,
        ):
            said = await answer.json()
            assert answer.status == 200, said
            found: dict[str, Any] = said["data"]
            return found

    async def report(self, member_id: str, *, status: WorkerStatus = WorkerStatus.IDLE) -> None:
        """Its agent and its worker say that they are there."""
        known = await self.members.get(member_id)
        assert known is not None, member_id
        await self.producer.machine(with_members(self.fleet, (known,)), member_id)
        await self.producer.worker(member_id, 0, status=status)

    async def expect(self, suffix: str) -> Member:
        """One that an engine was asked for."""
        member = Member(
            id=MachineId(f"{RENDERS}-{suffix}"),
            pool=RENDERS,
            state=MemberState.EXPECTED,
            born_ms=await time_ms(self.producer.redis),
            why="2 jobs wait",
        )
        assert await self.members.add(member, most=self.pool.max_size)
        return member

    async def says(self, wanted: int, there: int, *, lived: bool = False, **more: Any) -> None:
        """The leader tells how the pool stands; `lived`: also how it fared over the last hours."""
        status = PoolStatus(
            **{
                "provider": self.pool.provider,
                "least": self.pool.min_size,
                "most": self.pool.max_size,
                "wanted": wanted,
                "there": there,
                "why": f"{wanted} jobs wait, 1 a GPU: {wanted} wanted, {there} there",
                **more,
            }
        )
        at_ms = await self.course() if lived else 0
        await self.producer.status(pools={RENDERS: status}, courses_ms=at_ms)

    async def course(self) -> int:
        """A wave of jobs, an hour ago; when it was written."""
        now_ms = await time_ms(self.producer.redis)
        course: tuple[Point, ...] = ()
        for minute, *figures in WAVE:
            course = noted(course, Point(now_ms - minute * 60_000, *figures))
        await write_courses(self.producer.redis, self.producer.keys, await self.producer.mandate(), {RENDERS: course})
        return now_ms
