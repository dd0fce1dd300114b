"""A reconciler's line to Redis and to its runtime, and the few commands by which control/reconciler/observe reads them.

Each call is suspended twice, before Redis has it and before its answer is there: whoever drives the coroutine may let
the world go on in between. So answers are late, snapshots old, and commands done whose answer never came.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar, cast

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Instance
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from sim.redis import SimRedis
from support.fleet.world import World

T = TypeVar("T")


class Suspended:
    """Awaited, it gives the word to whoever drives the coroutine."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Line:
    """`cut`: nothing reaches Redis. `deaf`: what is sent arrives, and no answer comes back."""

    def __init__(self, world: World, redis: SimRedis) -> None:
        self.world = world
        self.redis = redis
        self.cut = False
        self.deaf = False
        self.clock_ahead_ms = 0

    # -- this host's clocks, in seconds

    def time(self) -> float:
        return (self.world.now_ms + self.clock_ahead_ms) / 1000

    def monotonic(self) -> float:
        return self.world.now_ms / 1000

    # -- to Redis

    async def call(self, command: Callable[[], T]) -> T:
        await Suspended()
        self.check()
        answer = command()
        await Suspended()
        if self.deaf or self.cut:
            raise RedisConnectionError("no answer")
        return answer

    def check(self) -> None:
        if self.cut or self.world.redis_away:
            raise RedisConnectionError("no way to Redis")


class Reports:
    """The part of redis-py's client that observe.py reads reports by, over the world's."""

    def __init__(self, line: Line, keys: Keys) -> None:
        self._line = line
        self._keys = keys

    def as_client(self) -> Client:
        return cast(Client, self)

    async def get(self, key: str) -> str:
        assert key == self._keys.reports_seq
        return await self._line.call(lambda: str(self._line.world.seq))

    async def zremrangebyscore(self, key: str, low: str, high: int) -> int:
        assert key == self._keys.reports_changed
        return await self._line.call(lambda: 0)

    async def eval(self, script: str, numkeys: int, *args: Any) -> list[Any]:
        """reports/changes: what changed since a number, and who is silent. reports/sizes: all may be read."""
        if args[0] == self._keys.machines and numkeys > 1:
            return [[1, [], []], [1, [], []]]
        if args[0] in (self._keys.machines, self._keys.workers):
            return []
        assert args[0] == self._keys.reports_changed
        seq, stale_after_ms, _ = args[numkeys:]
        return await self._line.call(lambda: self._changes(seq, stale_after_ms))

    def _changes(self, seq: int, stale_after_ms: int) -> list[Any]:
        world = self._line.world
        names = {"machine": self._keys.machines, "worker": self._keys.workers}
        changed = [f"{names[kind]} {i}" for (kind, i), n in world.changed.items() if n > seq]
        silent = [
            [
                word
                for i, (_, seen) in docs.items()
                if abs(world.redis_ms - seen) > stale_after_ms
                for word in (str(i), str(seen))
            ]
            for docs in (world.documents, world.workers)
        ]
        return [str(world.redis_ms), str(world.seq), changed, *silent]

    def pipeline(self, *, transaction: bool) -> Pipeline:
        return Pipeline(self._line, self._keys)


class Pipeline:
    def __init__(self, line: Line, keys: Keys) -> None:
        self._line = line
        self._keys = keys
        self._asked: list[Callable[[], Any]] = []

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(self, *exc: object) -> None: ...

    async def execute(self) -> list[Any]:
        return await self._line.call(lambda: [ask() for ask in self._asked])

    def _documents(self, key: str) -> dict[str, tuple[Any, int]]:
        world = self._line.world
        found = world.documents if key in (self._keys.machines, self._keys.machines_seen) else world.workers
        return cast(dict[str, tuple[Any, int]], found)

    def time(self) -> None:
        self._asked.append(lambda: (self._line.world.redis_ms // 1000, self._line.world.redis_ms % 1000 * 1000))

    def hgetall(self, key: str) -> None:
        self._asked.append(lambda: {str(i): _text(doc) for i, (doc, _) in self._documents(key).items()})

    def execute_command(self, verb: str, key: str, *args: object) -> None:
        assert (verb, *args) == ("ZRANGE", 0, -1, "WITHSCORES")
        self._asked.append(lambda: [[str(i), float(seen)] for i, (_, seen) in self._documents(key).items()])

    def hmget(self, key: str, ids: Iterable[str]) -> None:
        wanted = list(ids)
        self._asked.append(lambda: [_text(d[0]) if (d := self._documents(key).get(i)) else None for i in wanted])

    def zmscore(self, key: str, ids: Iterable[str]) -> None:
        wanted = list(ids)
        self._asked.append(lambda: [float(d[1]) if (d := self._documents(key).get(i)) else None for i in wanted])


def _text(document: Any) -> str:
    """A document as Redis holds it; a damaged one is no object."""
    return "7" if document is None else msgspec.json.encode(document).decode()


class Runtime:
    """What the process runtime says of the machines that it started, by the clock of this host."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def instances(self) -> dict[MachineId, Instance]:
        await Suspended()
        return self._line.world.instances(self._line.clock_ahead_ms)
