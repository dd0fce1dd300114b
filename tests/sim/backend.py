"""The reconciler's world, simulated: control/reconciler/backend.Backend over sim/redis.py, with the real observer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.control.reconciler.observe import Observer
from emp_orch.fleet.drift.incremental import Attention
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan.operations import Operation
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, Round
from emp_orch.runtimes.base import Runtime as AnyRuntime
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.requests import Request
from emp_orch.store.redis.keys import Keys
from sim.line import Line, Reports, Runtime
from sim.operations import Operations
from sim.redis import FLEET, LEASE_MS
from support.fleet.world import World

KEYS = Keys()
# The leader takes its lease for over so long before Redis does.
MARGIN_MS = 1_000


class SimBackend:
    """What one reconciler has of the world. `who` is unique to its life."""

    def __init__(self, who: str, line: Line, operations: Operations, told: Callable[[Memory], None]) -> None:
        self.who = who
        self.line = line
        self.operations = operations
        self._told = told
        self._current: Generation | None = None
        runtimes = cast(
            Mapping[RuntimeKind, AnyRuntime], {RuntimeKind.PROCESS: Runtime(line), RuntimeKind.COMPOSE: Runtime(line)}
        )
        self._observer = Observer(Reports(line, KEYS).as_client(), KEYS, runtimes, fresh=True, clock=line)
        # Until when our lease surely stands, by time itself.
        self.deadline_ms = 0
        # All that there was at the instant of the look, if the look was at one instant.
        self.whole: Observed | None = None
        # The highest epoch that we know of.
        self.highest = 0
        self.led: int | None = None

    @property
    def world(self) -> World:
        return self.line.world

    async def acquire_lease(self) -> Mandate | None:
        asked_ms = self.world.now_ms
        epoch = await self.line.call(lambda: self.line.redis.acquire(self.who, self.highest))
        self.highest = max(self.highest, self.line.redis.epoch)
        self.deadline_ms = 0 if epoch is None else asked_ms + LEASE_MS - MARGIN_MS
        self.led = epoch
        return None if epoch is None else Mandate(fleet=FLEET, holder=self.who, epoch=epoch)

    async def memory(self) -> Memory | None:
        return await self.line.call(lambda: self.line.redis.memory)

    async def generation(self) -> Generation | None:
        self._current = await self.line.call(self._generation)
        return self._current

    def _generation(self) -> Generation | None:
        redis = self.line.redis
        if redis.number == 0 and redis.disk is not None:
            redis.number = redis.disk.number
            redis.specs[redis.number] = redis.disk
        return redis.specs.get(redis.number)

    async def overrides(self) -> tuple[Override, ...]:
        found = self.line.redis.overrides
        return await self.line.call(lambda: tuple(found[key] for key in sorted(found)))

    async def look(self, desired: Desired, attention: Attention) -> Observed:
        before = (self.world.now_ms, self.world.version)
        seen = await self._observer.follow(desired, attention)
        self.whole = None
        if before == (self.world.now_ms, self.world.version):
            self.whole = _as_since(self.world.look(), seen)
        return seen

    async def requests(self) -> list[tuple[str, Request | None]]:
        return await self.line.call(lambda: cast(Any, list(self.line.redis.requests.items())))

    async def answer(self, request_id: str, error: str, mandate: Mandate) -> None:
        with suppress(RedisConnectionError):
            await self.line.call(lambda: self._answer(request_id, error, mandate))

    def _answer(self, request_id: str, error: str, mandate: Mandate) -> None:
        self.line.redis.fence(mandate.epoch)
        self.line.redis.requests.pop(request_id, None)
        self.line.redis.answers[request_id] = error

    async def tend_jobs(self, current: Generation | None, observed: Observed | None, mandate: Mandate) -> None:
        """The queue looks after itself in this world."""

    def tend_keys(self, desired: Desired, mandate: Mandate) -> None:
        """Every machine of this world has its key."""

    def begin(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        self.operations.begin(operation, desired, mandate.epoch, self)

    async def publish(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        def write() -> None:
            self.line.redis.remember(done.memory, list(done.entries), mandate.epoch)
            self._told(done.memory)

        await self.line.call(write)

    async def roll_back(self, number: int, why: str, mandate: Mandate) -> None:
        await self.line.call(lambda: self.line.redis.publish_again(number, mandate.epoch))

    def lost(self) -> None:
        self._observer.lost()
        self._current = None


def _as_since(observed: Observed, seen: Observed) -> Observed:
    """Since when anybody could be heard is known to who looks again and again."""
    return structs.replace(observed, observing_since_ms=seen.observing_since_ms, back_ms=seen.back_ms)
