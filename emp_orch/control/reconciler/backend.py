"""All that the reconciler needs of the world. The real one is redis_backend.py; tests have a simulated one."""

from __future__ import annotations

from typing import Protocol

from emp_orch.fleet.drift.incremental import Attention
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.plan.operations import Operation
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, Round
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.requests import Request


class Backend(Protocol):
    """Its calls raise what redis-py raises when Redis is away: then nothing is known, and nobody acts.

    Those with a mandate raise NotLeader when that does not stand any more.
    """

    async def acquire_lease(self) -> Mandate | None:
        """Take or renew the lease; None when another leads."""
        ...

    async def memory(self) -> Memory | None:
        """What the last leader remembered."""
        ...

    async def generation(self) -> Generation | None:
        """The generation in force; restored into a Redis that lost it."""
        ...

    async def overrides(self) -> tuple[Override, ...]: ...

    async def look(self, desired: Desired, attention: Attention) -> Observed:
        """The world as it is now; of those in `attention` in full."""
        ...

    async def requests(self) -> list[tuple[str, Request | None]]:
        """What people asked and nobody answered yet; None for what does not fit."""
        ...

    async def answer(self, request_id: str, error: str, mandate: Mandate) -> None:
        """Tell whoever asked what came of it; empty: it was done."""
        ...

    async def tend_jobs(self, current: Generation | None, observed: Observed | None, mandate: Mandate) -> None:
        """What the leader does for the queue; `observed` is None before the look."""
        ...

    def tend_keys(self, desired: Desired, mandate: Mandate) -> None:
        """See that every machine has the key that its commands are sealed by."""
        ...

    def begin(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        """Start an operation beside the round; its outcome comes to `Reconciler.ended`, `handed_over` or `given_up`."""
        ...

    async def publish(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        """Let everybody know what this round saw and decided."""
        ...

    async def roll_back(self, number: int, why: str, mandate: Mandate) -> None:
        """Publish generation `number` again as a new one."""
        ...
