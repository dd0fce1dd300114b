"""The reconciler's world for real: Redis, the runtimes, the fleet's folder."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial

from msgspec import structs
from redis.exceptions import ResponseError

from emp_orch.control.host import generation as generations
from emp_orch.control.jobs.upkeep import JobUpkeep
from emp_orch.control.leader.failures import Failures
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.limits import MAX_ERROR
from emp_orch.control.pools.keeper import PoolKeeper
from emp_orch.control.pools.past import Past
from emp_orch.control.pools.told import pools_status
from emp_orch.control.reconciler.observe import Observer
from emp_orch.control.reconciler.operations import Operations
from emp_orch.control.upkeep.key_handover import KeyHandover
from emp_orch.control.upkeep.redis_watch import RedisWatch
from emp_orch.errors import Damaged, EmpError
from emp_orch.fleet.drift.incremental import Attention, in_full
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.defaults import RECONCILE_INTERVAL_S
from emp_orch.fleet.model.fleet import Pool, PoolName
from emp_orch.fleet.model.observed import DamagedKey, Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.model.pools import JOIN
from emp_orch.fleet.plan.operations import Operation
from emp_orch.fleet.policy.allowance import full
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.policy.pauses import fleet_pause
from emp_orch.fleet.policy.rollout import broken_by_it
from emp_orch.fleet.round import Inputs, Round
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet import journal, requests, rounds
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.pools.members import Members, Seen, populated
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.fleet.requests import Request
from emp_orch.store.fleet.status import BreakerStatus, FleetStatus, RolloutStatus, write_status
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.key_errors import is_damage
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")


class RedisBackend:
    """Implements control/reconciler/backend.Backend."""

    def __init__(
        self,
        r: Client,
        keys: Keys,
        layout: Layout,
        fleet: str,
        election: LeaderElection,
        observer: Observer,
        operations: Operations,
        jobs: JobUpkeep,
        watch: RedisWatch,
        key_handover: KeyHandover,
        pools: PoolKeeper | None = None,
    ) -> None:
        self._r = r
        self._keys = keys
        self._layout = layout
        self._fleet = fleet
        self._election = election
        self._observer = observer
        self._operations = operations
        self._jobs = jobs
        self._watch = watch
        self._key_handover = key_handover
        self._pools = pools
        self._events = Events(r, keys)
        self._signing = SigningKey(layout, fleet)
        self._once = requests.Once()
        self._current: Generation | None = None
        self._members = Members(r, keys, fleet, self._signing.control)
        self._retired = RetiredPools(r, keys)
        self._past = Past(r, keys, fleet)
        self._former: dict[PoolName, tuple[Pool, ...]] = {}
        self._seen: Seen | None = None
        self._populated: Generation | None = None
        self._told_of_members = ""
        self._remembered: Memory | None = None
        self._told: tuple[object, ...] = ()
        self._may_grow = False
        self._failures = Failures()
        self._damaged: dict[str, DamagedKey] = {}

    async def acquire_lease(self) -> Mandate | None:
        return await self._election.take()

    async def memory(self) -> Memory | None:
        return await rounds.read_memory(self._r, self._keys, self._fleet, self._signing.control())

    async def generation(self) -> Generation | None:
        """The same again as long as neither it nor a member of its pools is another."""
        before, seen = self._current, self._seen
        found = await self._read_generation()
        if found is None:
            self._populated = None
            return None
        self._seen = await self._read_members()
        if self._seen is not seen or found is not before or self._populated is None:
            whole = await self._retired.added(found, self._seen, self._signing.control())
            self._former = await self._retired.former(whole, self._seen, self._signing.control())
            self._populated = populated(whole, self._seen)
        return self._populated

    async def _read_members(self) -> Seen:
        """Those known before, where they cannot be read: nobody is less a member for what somebody wrote into Redis."""
        key = self._keys.members(self._fleet)
        try:
            seen = await self._members.read(self._seen)
        except KeyDamaged as e:
            seen, found = self._seen or Seen(mark=""), e.words[:MAX_ERROR]
        else:
            found = f"{len(seen.ill)} that nobody of this fleet wrote: {', '.join(seen.ill[:3])}" if seen.ill else ""
        if found:
            if found != self._told_of_members:
                log.warning("%s: %s", key, found)
            self._damaged |= {key: DamagedKey(key=key, expected="members of the fleet's pools", found=found)}
        self._told_of_members = found
        return seen

    async def _read_generation(self) -> Generation | None:
        """As emp.yaml has it. Read again only when the number is another: a large one costs tens of ms."""
        try:
            found = await generations.current(self._r, self._keys, self._layout, self._fleet, known=self._current)
        except (Damaged, KeyDamaged) as e:
            found = self._in_force(e)
        else:
            self._damaged = {}
        self._current = found
        return found

    @property
    def in_force(self) -> Generation | None:
        """As far as that is known now, with the members of its pools."""
        return self._populated

    def _in_force(self, e: Damaged | KeyDamaged) -> Generation:
        """The generation that was in force when it could be read: what was applied is no less wanted for that."""
        found = self._current or generations.kept(self._layout)
        if found is None or found.fleet.name != self._fleet:
            raise e
        key = self._keys.generation(self._fleet)
        words = e.message if isinstance(e, Damaged) else e.words
        if key not in self._damaged:
            log.warning("%s; generation %d stays in force", words, found.number)
        self._damaged = {key: DamagedKey(key=key, expected="the generation in force", found=words[:MAX_ERROR])}
        return found

    async def overrides(self) -> tuple[Override, ...]:
        return await read_overrides(self._r, self._keys, self._fleet, self._signing.control())

    async def look(self, desired: Desired, attention: Attention) -> Observed:
        """Where a key of the reports is not emp's, nothing is known of anybody, and nothing done about it."""
        try:
            observed = await self._observer.follow(desired, attention)
        except ResponseError as e:
            if not is_damage(e):
                raise
            return await self._observer.blind(await self._watch.look_for_damage())
        found = (*observed.damaged, *self._watch.damaged, *self._damaged.values())
        return await self._with_pools(structs.replace(observed, damaged=found) if found else observed)

    async def _with_pools(self, observed: Observed) -> Observed:
        if self._pools is None or self._populated is None:
            return observed
        look = self._pools.look(self._populated.fleet, observed, self._former)
        return await self._failures.tolerate(look, "pools", observed)

    async def requests(self) -> list[tuple[str, Request | None]]:
        asked = requests.pending(self._r, self._keys, self._fleet, self._signing.control(), self._once.fits)
        return await self._failures.tolerate(asked, "what people ask", [])

    async def answer(self, request_id: str, error: str, mandate: Mandate) -> None:
        self._election.assure(mandate)
        with suppress(*TRANSIENT):  # whoever asked sees the state itself
            await requests.answer(self._r, self._keys, self._fleet, request_id, error=error)

    async def tend_jobs(self, current: Generation | None, observed: Observed | None, mandate: Mandate) -> None:
        still = partial(self._election.assure, mandate)
        if observed is None:
            await self._failures.tolerate(self._jobs.sweep(current, still), "lost jobs", None)
        elif current is not None and not observed.blind:
            await self._jobs.tend(current, observed, still)

    def tend_keys(self, desired: Desired, mandate: Mandate) -> None:
        self._key_handover.tend(desired, mandate)

    def begin(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        self._operations.begin(operation, desired, mandate)

    def lost(self) -> None:
        """Reading failed: what is known is to be learnt anew."""
        self._observer.lost()
        self._past.lost()
        self._jobs.lost()
        self._current = self._populated = None
        self._seen = None
        self._remembered = None

    # -- telling

    @property
    def may_grow(self) -> bool:
        """Whether a job that is queued could make a pool larger, as of the last round."""
        return self._may_grow

    async def publish(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        """Write the status each round, and tell everybody when what it says has changed."""
        async with self._operations.telling:  # what this round began may be over before it is told
            await self._publish(inputs, done, mandate)

    async def _publish(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        status = self._status(inputs, done, mandate)
        self._may_grow = any(p.provider != JOIN and p.wanted < p.most for p in status.pools.values())
        past = self._past.note(status.pools, status.at_ms, mandate)
        status = structs.replace(status, courses_ms=await self._failures.tolerate(past, "the past of pools", 0))
        await write_status(self._r, self._keys, mandate, status)
        if done.memory != self._remembered:
            await rounds.write_memory(self._r, self._keys, mandate, done.memory, self._signing.control())
            self._remembered = done.memory
        await self._failures.tolerate(self._tell(inputs, done, status, mandate), "telling", None)

    async def _tell(self, inputs: Inputs, done: Round, status: FleetStatus, mandate: Mandate) -> None:
        """What is good to know, and not worth a round: the journal, the record of a round, the event."""
        begun: list[Entry] = [
            ("operation_begun", {"operation": o.key, "machine_id": o.machine_id, "text": o.text})
            for o in done.decision.run
        ]
        await write_journal(self._r, self._keys, mandate, [*done.entries, *begun])
        if done.decision.run:
            await self._failures.tolerate(self._record(inputs, done, mandate), "the record of a round", None)
        sizes = [(p.wanted, p.there, p.ready, p.leaving, p.engine) for p in status.pools.values()]
        told = (status.generation, status.drift, status.overrides, status.breaker, status.rollout, status.redis, sizes)
        if told != self._told:
            self._told = told
            await self._events.append(
                "drift_changed", fleet=self._fleet, generation=status.generation, count=len(status.drift)
            )

    async def _record(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        kept = rounds.Recorded(
            inputs=structs.replace(inputs, observed=in_full(inputs.observed, inputs.desired.stale_after_ms)),
            plan=tuple(o.text for o in done.operations),
            run=tuple(o.key for o in done.decision.run),
        )
        packed = await asyncio.to_thread(rounds.pack, kept)
        await rounds.record(self._r, self._keys, mandate, packed)

    def _status(self, inputs: Inputs, done: Round, mandate: Mandate) -> FleetStatus:
        breaker, pause = done.memory.breaker, fleet_pause(inputs.overrides)
        opened = breaker.open_since_ms
        return FleetStatus(
            fleet=self._fleet,
            generation=inputs.desired.generation,
            leader=mandate.holder,
            epoch=mandate.epoch,
            at_ms=inputs.observed.now_ms,
            interval_ms=int(self.interval_s() * 1000),
            drift=done.items,
            plan=tuple(o.text for o in done.operations),
            paused=pause.words if pause else "",
            overrides=inputs.overrides,
            breaker=None
            if opened is None
            else BreakerStatus(reason=breaker.reason, since_ms=opened, trial=breaker.trial),
            rollout=_rollout(inputs, done) if done.memory.rollout.pending else None,
            installed=inputs.observed.installed,
            redis=self._watch.status,
            pools=pools_status(inputs, done),
        )

    def interval_s(self) -> float:
        """The time between two rounds, as the generation in force says."""
        return self._current.fleet.reconcile.interval_s if self._current else RECONCILE_INTERVAL_S

    async def roll_back(self, number: int, why: str, mandate: Mandate) -> None:
        """Publish generation `number` again, unless somebody published another meanwhile."""
        self._election.assure(mandate)
        try:
            new = await generations.publish_again(self._r, self._keys, self._layout, self._fleet, number, why)
        except EmpError as e:
            log.error("cannot go back to generation %d: %s", number, e.message)
            return
        log.warning("went back to generation %d as %d: %s", number, new, why)
        entry = ("rolled_back", {"generation": number, "as": new, "reason": why})
        await write_journal(self._r, self._keys, mandate, [entry])


def _rollout(inputs: Inputs, done: Round) -> RolloutStatus:
    rollout = done.memory.rollout
    broken = broken_by_it(rollout, (i.drift for i in done.items))
    return RolloutStatus(
        generation=rollout.generation,
        pending=len(rollout.pending),
        stalled=rollout.stalled,
        since_progress_ms=rollout.progress_ms,
        done=rollout.done,
        broken=tuple(broken),
        halted=bool(full(inputs.desired, broken)),
    )


async def write_journal(r: Client, keys: Keys, mandate: Mandate, entries: list[Entry]) -> None:
    """Into the journal and the log."""
    for type_, data in entries:
        log.info("%s %s", type_, " ".join(f"{k}={v}" for k, v in data.items()))
    await journal.write(r, keys, mandate, entries)
