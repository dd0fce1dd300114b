"""What is desired now: the generation in force, with the drains that people ordered."""

from __future__ import annotations

from emp_orch.control.host.generation import as_desired
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.policy.pauses import drained
from emp_orch.store.fleet.generations import Generation


def _but_for_members(a: Generation, b: Generation) -> bool:
    return (a.number, a.at_ms, a.digest) == (b.number, b.at_ms, b.digest)


class DesiredState:
    """Remembers the last answer: 1,000 machines are not resolved and hashed anew each round."""

    def __init__(self, redis: str = "") -> None:
        self._redis = redis
        self._generation: Generation | None = None
        self._bare: Desired | None = None
        self._overrides: tuple[Override, ...] = ()
        self._effective: Desired | None = None

    def of(self, generation: Generation, overrides: tuple[Override, ...]) -> Desired:
        if self._bare is None or self._generation is not generation:
            # A member that comes or goes leaves the others as they are.
            same = self._generation is not None and _but_for_members(self._generation, generation)
            self._bare = as_desired(generation, redis=self._redis, like=self._bare if same else None)
            self._effective = None
        if self._effective is None or overrides != self._overrides:
            self._effective = drained(self._bare, overrides)
        self._generation, self._overrides = generation, overrides
        return self._effective
