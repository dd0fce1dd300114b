"""The reconciler: as the leader, round after round, look, decide, act: by fleet/round, and by its backend."""

from __future__ import annotations

import logging
from contextlib import suppress

from msgspec import structs

from emp_orch.control.reconciler.backend import Backend
from emp_orch.control.reconciler.desired import DesiredState
from emp_orch.control.reconciler.requests import as_operation
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.incremental import Attention, IncrementalDiff
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.plan.operations import Operation
from emp_orch.fleet.policy.memory import Memory, ended
from emp_orch.fleet.policy.situation import IN_FLIGHT_MS
from emp_orch.fleet.round import Inputs, Round, decide
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.fleet.requests import Request, Verb

log = logging.getLogger("reconcile")


class Reconciler:
    """One candidate for leadership of one fleet. When it begins to lead, it takes over the last leader's memory."""

    def __init__(self, backend: Backend, *, jitter: float, redis: str = "") -> None:
        self._backend = backend
        # Drawn once: what is shown as the next attempt must not move from round to round.
        self._jitter = jitter
        self._desired_state = DesiredState(redis)
        self._diff = IncrementalDiff()
        self._memory = Memory()
        self._mandate: Mandate | None = None
        self._running: set[str] = set()
        self._asked: dict[str, list[str]] = {}
        self._outcomes: list[Entry] = []
        # When what people asked for was begun: a machine's next life does not answer for the last.
        self._asked_ms: dict[str, int] = {}

    async def tick(self) -> Round | None:
        """One round; None when another leads, or nothing was ever applied."""
        mandate = await self._lead()
        if mandate is None:
            return None
        current = await self._backend.generation()
        await self._backend.tend_jobs(current, None, mandate)
        if current is None:
            return None
        overrides = await self._backend.overrides()
        desired = self._desired_state.of(current, overrides)
        self._backend.tend_keys(desired, mandate)
        observed = await self._backend.look(desired, self._attention())
        await self._backend.tend_jobs(current, observed, mandate)
        asked, closes_breaker = await self._requests(desired, observed, mandate)
        inputs = Inputs(
            desired=desired,
            observed=observed,
            memory=self._memory,
            overrides=overrides,
            asked=asked,
            running=frozenset(self._running),
            closes_breaker=closes_breaker,
            jitter=self._jitter,
        )
        done = decide(inputs, self._diff.diff(desired, observed))
        await self._act(inputs, done, mandate)
        return done

    def _attention(self) -> Attention:
        """Of whom the look must tell all: who drifts, and on whom something was tried lately."""
        tried = {MachineId(key.split("/", 2)[1]) for key in self._memory.attempts}
        attention = self._diff.attention
        return structs.replace(attention, machines=attention.machines | tried)

    async def _lead(self) -> Mandate | None:
        """The lease, held for this round; a new one begins with what the last leader remembered."""
        mandate = await self._backend.acquire_lease()
        if mandate is None:
            self._asked.clear()  # what was asked is the leader's to answer
        elif mandate != self._mandate:
            # A Redis that was emptied remembers nothing; what we know ourselves is better.
            self._memory = self._with_running(await self._backend.memory() or self._memory)
        self._mandate = mandate
        return mandate

    def _with_running(self, remembered: Memory) -> Memory:
        """The last leader's memory. What it had under way is unknown; what we are at is known."""
        ours = {key: a for key, a in self._memory.attempts.items() if key in self._running}
        for key in remembered.attempts:
            remembered = ended(remembered, key, ok=False)
        return structs.replace(remembered, attempts={**remembered.attempts, **ours})

    async def _act(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        """Begin what was decided, and tell. What cannot be told is begun all the same: the next round tells it."""
        self._memory = done.memory
        now_ms = inputs.observed.now_ms
        self._asked_ms |= {o.key: now_ms for o in inputs.asked}
        for operation in done.decision.run:
            self._running.add(operation.key)
            self._backend.begin(operation, inputs.desired, mandate)
        outcomes = tuple(self._outcomes)
        await self._backend.publish(inputs, structs.replace(done, entries=(*outcomes, *done.entries)), mandate)
        del self._outcomes[: len(outcomes)]
        if done.rollback is not None:
            why = f"generation {inputs.desired.generation} made no progress"
            await self._backend.roll_back(done.rollback, why, mandate)
        await self._give_up(now_ms)

    async def _give_up(self, now_ms: int) -> None:
        """Answer those who asked for what nobody will tell the outcome of any more."""
        for key in [k for k in self._asked if k not in self._running]:
            if abs(now_ms - self._asked_ms.setdefault(key, now_ms)) >= IN_FLIGHT_MS:
                await self.ended(key, error="the machine did not say what came of it")

    def stand_by(self) -> None:
        """Something was refused: nothing more is done under this mandate; the next begins with what is published."""
        self._mandate = None
        self._outcomes.clear()  # the leader hears of them as well

    def handed_over(self, key: str) -> None:
        """The machine has been told; it says itself when the operation is done."""
        self._running.discard(key)

    def given_up(self, key: str) -> None:
        """It is not ours to do any more. What was asked stays asked: the leader takes it up."""
        self._running.discard(key)
        self._memory = ended(self._memory, key, ok=False)
        self._asked.pop(key, None)

    async def ended(self, key: str, *, error: str = "") -> None:
        """The outcome of an operation is known."""
        self._running.discard(key)
        self._asked_ms.pop(key, None)
        self._memory = ended(self._memory, key, ok=not error, error=error)
        for request_id in self._asked.pop(key, []):
            if self._mandate is not None:
                with suppress(NotLeader):  # then the leader is at it, and answers
                    await self._backend.answer(request_id, error, self._mandate)

    async def reported(self, key: str, *, error: str = "") -> None:
        """A machine says what came of an operation that it was handed; the next round writes it into the journal."""
        if self._mandate is not None and key in self._memory.attempts:
            machine_id = key.split("/", 2)[1]
            outcome = {"outcome": "failed", "error": error} if error else {"outcome": "done"}
            self._outcomes.append(("operation_ended", {"operation": key, "machine_id": machine_id, **outcome}))
        await self.ended(key, error=error)

    def lost(self) -> None:
        """Nothing is seen: what was known of the world is to be learnt anew."""
        self._diff = IncrementalDiff()

    async def _requests(
        self, desired: Desired, observed: Observed, mandate: Mandate
    ) -> tuple[tuple[Operation, ...], bool]:
        """What people asked for since the last round; each is answered when its outcome is known."""
        taken = {request_id for ids in self._asked.values() for request_id in ids}
        found: dict[str, Operation] = {}
        closes = False
        for request_id, request in await self._backend.requests():
            if request_id in taken:
                continue
            if request is not None and request.verb is Verb.CLOSE_BREAKER:
                closes = True
                await self._backend.answer(request_id, "", mandate)
                continue
            try:
                operation = as_operation(request, desired, observed)
            except EmpError as e:
                await self._backend.answer(request_id, e.message, mandate)
                continue
            _say(request, operation)
            self._asked.setdefault(operation.key, []).append(request_id)
            found.setdefault(operation.key, operation)
        return tuple(found.values()), closes


def _say(request: Request | None, operation: Operation) -> None:
    log.info("asked by %s: %s", request.by if request else "?", operation.text)
