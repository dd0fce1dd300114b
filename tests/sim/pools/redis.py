"""Redis as pools use it: the members, the lanes of jobs, the time; reports as in sim/line.py. Each call takes a while,
so others come between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from sim.line import Line, Pipeline, Reports
from sim.pools.fleets import LANES
from sim.redis import FLEET, SimRedis
from support.fleet.world import World

T = TypeVar("T")
KEYS = Keys()
_PUT, _REMOVE = script("fleet/put_member"), script("fleet/remove_member")


@dataclass
class MembersOf:
    """`fleet:f:members` and what counts them, as store/fleet/lua/{put,remove}_member have it."""

    texts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    mark: int = 0

    def put(self, member_id: str, text: str, pool: str, most: int, before: str) -> int:
        there = self.texts.get(member_id)
        if before != "*" and (there or "") != before:
            return -1
        if there is None:
            if 0 < most <= self.counts.get(pool, 0):
                return 0
            self.counts[pool] = self.counts.get(pool, 0) + 1
        self.texts[member_id] = text
        self.mark += 1
        return 1

    def remove(self, member_id: str, pool: str, before: str) -> int:
        there = self.texts.get(member_id)
        if there is None:
            return 0
        if before not in ("*", there):
            return -1
        del self.texts[member_id]
        self.counts[pool] -= 1
        self.mark += 1
        return 1


class SlowLine(Line):
    """As sim/line.Line: an answer comes up to `late_s` after the question."""

    def __init__(self, world: World, redis: SimRedis, dice: Random) -> None:
        super().__init__(world, redis)
        self._dice = dice
        self.late_s = 0.01

    async def call(self, command: Callable[[], T]) -> T:
        await asyncio.sleep(self._dice.random() * self.late_s)
        self.check()
        answer = command()
        await asyncio.sleep(self._dice.random() * self.late_s)
        if self.deaf or self.cut:
            raise RedisConnectionError("no answer")
        return answer


class PoolRedis(Reports):
    """One process's client. `changed` is called where an event tells of members; `waiting` of each lane's jobs."""

    def __init__(
        self, line: Line, members: MembersOf, waiting: Callable[[str], int], changed: Callable[[], None]
    ) -> None:
        super().__init__(line, KEYS)
        self._members = members
        self._waiting = waiting
        self._changed = changed
        self._ask = line.call
        self.connection_pool = SimpleNamespace(connection_kwargs={"db": 0})

    def as_client(self) -> Client:
        return cast(Client, self)

    async def time(self) -> tuple[int, int]:
        return await self._ask(lambda: (self._line.world.redis_ms // 1000, self._line.world.redis_ms % 1000 * 1000))

    async def getrange(self, key: str, start: int, end: int) -> str:
        assert key == KEYS.members_mark(FLEET)
        return await self._ask(lambda: str(self._members.mark) if self._members.mark else "")

    async def hscan(self, key: str, *, cursor: int, count: int) -> tuple[int, Mapping[str, str]]:
        assert key == KEYS.members(FLEET)
        return await self._ask(lambda: (0, dict(self._members.texts)))

    async def get(self, key: str) -> str:
        if key == KEYS.lanes_version:
            return await self._ask(lambda: "1")
        return await super().get(key)

    async def hget(self, key: str, member_id: str) -> str | None:
        assert key == KEYS.members(FLEET)
        return await self._ask(lambda: self._members.texts.get(member_id))

    async def hgetall(self, key: str) -> Mapping[str, str]:
        assert key == KEYS.lanes
        texts = {lane: msgspec.json.encode(Requirements(service=lane)).decode() for lane in LANES}
        return await self._ask(lambda: texts)

    async def xadd(self, key: str, fields: Mapping[str, str], **_: Any) -> str:
        def told() -> str:
            if key == KEYS.events:
                self._changed()
            return "1-1"

        return await self._ask(told)

    def register_script(self, text: str) -> Callable[..., Awaitable[Any]]:
        async def run(keys: Sequence[str], args: Sequence[Any]) -> int:
            if text == _PUT:
                member_id, document, pool, most, before = args
                return await self._ask(lambda: self._members.put(member_id, document, pool, most, before))
            assert text == _REMOVE
            return await self._ask(lambda: self._members.remove(*args))

        return run

    async def execute_command(self, *words: Any) -> Any:
        raise NotImplementedError(f"{words[0]}: no part of this world")

    def pipeline(self, *, transaction: bool) -> Pipeline:
        return LanesPipeline(self._line, self._keys, self._waiting)


class LanesPipeline(Pipeline):
    def __init__(self, line: Line, keys: Keys, waiting: Callable[[str], int]) -> None:
        super().__init__(line, keys)
        self._waiting = waiting

    def execute_command(self, verb: str, key: str, *args: object) -> None:
        if verb == "ACL":  # members have no login
            self._asked.append(lambda: 0)
        else:
            super().execute_command(verb, key, *args)

    async def execute(self, **_: object) -> list[Any]:
        return await super().execute()

    def zcard(self, key: str) -> None:
        lane = next(lane for lane in LANES if key == KEYS.lane(lane))
        self._asked.append(lambda: self._waiting(lane))
