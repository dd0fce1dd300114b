"""One reconciler's process: the real Reconciler on a simulated backend, driven await by await.

It may be stopped between any two awaits and go on later (SIGSTOP), be killed and start anew, or lose its line to Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.control.reconciler.rounds import Reconciler
from emp_orch.errors import EmpError
from emp_orch.fleet.round import Inputs, Round
from emp_orch.store.fleet.leader import Mandate, NotLeader
from sim.backend import SimBackend
from sim.line import Line
from sim.operations import Operations
from sim.redis import SimRedis
from support.fleet.world import World

# As control/reconciler/loop.py has them.
TICK_MS = 8_000
INTERVAL_MS = 2_000


class Watched(Reconciler):
    """Shows each round to `judge` before it acts."""

    def __init__(self, backend: SimBackend, judge: Callable[[Inputs, Round], None]) -> None:
        super().__init__(backend, jitter=0.5)
        self._judge = judge

    @property
    def epoch(self) -> int | None:
        return self._mandate.epoch if self._mandate else None

    async def _act(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        self._judge(inputs, done)
        await super()._act(inputs, done, mandate)


class Node:
    """`watch` judges: judge(node, inputs, done), acts(operation, epoch), told(memory)."""

    def __init__(self, name: str, world: World, redis: SimRedis, watch: Any) -> None:
        self.name = name
        self._world = world
        self._redis = redis
        self._watch = watch
        self.lives = 0
        self.dead = False
        self.frozen = False
        self.line = Line(world, redis)
        self._tick: Coroutine[Any, Any, Round | None] | None = None
        self.start()

    def start(self) -> None:
        """A new process; only the line is as it was."""
        self.lives += 1
        self.dead = self.frozen = False
        self._next_ms = 0
        self._end_tick()
        self.operations = Operations(self.line, self, self._watch.acts)
        self.backend = SimBackend(f"{self.name}.{self.lives}", self.line, self.operations, self._watch.told)
        self.reconciler = Watched(self.backend, lambda inputs, done: self._watch.judge(self, inputs, done))

    def kill(self) -> None:
        self.dead = True
        self._end_tick()

    def _end_tick(self) -> None:
        if self._tick is not None:
            self._tick.close()
        self._tick = None

    # -- driving it

    def run(self, steps: int | None = None) -> None:
        """Begin a round when it is time, and go on with it: to its end, or for so many awaits."""
        if self.dead or self.frozen:
            return None
        if self._tick is None:
            if self._world.now_ms < self._next_ms:
                return self.operations.go_on()
            self._tick = self.reconciler.tick()
            self._begun_ms = self._world.now_ms
        late = self._world.now_ms - self._begun_ms >= TICK_MS
        taken = 0
        try:
            while steps is None or taken < steps:
                if late and taken:
                    self._end_tick()
                    raise TimeoutError
                self._tick.send(None)
                taken += 1
        except StopIteration:
            self._tick = None
            self._next_ms = self._world.now_ms + INTERVAL_MS
        except AssertionError:
            self._tick = None
            raise
        except (RedisConnectionError, TimeoutError):
            self._lose()
        except NotLeader:
            self._tick = None
            self.reconciler.stand_by()
        except EmpError:
            self._tick = None
        if self._tick is None:
            self.operations.go_on()
        return None

    def _lose(self) -> None:
        """As control/reconciler/loop.py when Redis does not answer."""
        self._tick = None
        self.backend.lost()
        self.reconciler.lost()
        self._watch.lost_sight(self.backend.who)

    def freeze(self, steps: int) -> None:
        """Stop it after so many awaits of a round."""
        self._next_ms = 0
        self.run(steps)
        self.frozen = True

    def wake(self) -> None:
        """Something happened: the next round comes now."""
        self._next_ms = 0

    # -- outcomes

    def handed_over(self, key: str) -> None:
        self.reconciler.handed_over(key)

    def given_up(self, key: str) -> None:
        self.reconciler.given_up(key)

    def ended(self, key: str, error: str) -> None:
        if self.dead:
            return
        outcome = self.reconciler.ended(key, error=error)
        try:
            while True:
                outcome.send(None)
        except StopIteration:
            pass
        self.wake()
