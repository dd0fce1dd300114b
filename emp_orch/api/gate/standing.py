"""Whose token it is: which box of the fleet, and what it has. Known for a moment, as a box comes with many at once; how
old what was read is goes along with each answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from msgspec import Struct, structs

from emp_orch.api.context import Context
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.model.fleet import Fleet, Machine, MachineId, Member, PoolName
from emp_orch.fleet.model.ids import worker_id
from emp_orch.runtimes.keys.join_tokens import JoinTokens, OfMember
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.stranger_rules import Box
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.members import Seen
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.redis.client import within
from emp_orch.store.redis.damaged import KeyDamaged

log = logging.getLogger(__name__)

# So long what was read counts: a member that was forgotten is without a way to Redis so much later at most.
KNOWN_S = 2.0
# What is told was read so long ago at most.
FRESH_S = KNOWN_S / 2
# A generation that is damaged is a person's to mend. So long boxes go by the last good one: a night and a morning.
LAST_GOOD_S = 12 * 3_600.0


class Stands(Struct, frozen=True, kw_only=True):
    """The box that a token is of, as it was read less than KNOWN_S before `until_s`, when it is to be asked anew."""

    box: Box
    until_s: float


class _Now(Struct, frozen=True, kw_only=True):
    """The fleet with its machines by id, and the members of its pools, as they were read at `at_s`. A pool that
    emp.yaml names no more is one until its members have drained.
    """

    at_s: float
    good_s: float  # when the generation could be read last
    generation: Generation  # as emp.yaml has it
    seen: Seen
    fleet: Fleet
    machines: dict[MachineId, Machine]
    members: dict[MachineId, Member]


class Standing:
    """Looks up tokens. Raises what redis-py raises, TimeoutError, and EmpError for a damaged generation or key.

    `clock` tells seconds, and only rises.
    """

    def __init__(self, ctx: Context, clock: Callable[[], float] = time.monotonic) -> None:
        self._ctx = ctx
        self._clock = clock
        self._tokens = JoinTokens(ctx.layout)
        self._known: dict[str, Box] = {}  # by `_known_of`
        self._known_of: _Now | None = None
        self._reading = asyncio.Lock()
        self._retired = RetiredPools(ctx.redis, ctx.keys)
        self._last: _Now | None = None
        self._told = ""

    async def of(self, token: str) -> Stands | None:
        """The box that shows it; None: it is nobody's, or nobody's any more."""
        shown = None if token in self._known else self._shown(token)
        if shown is None and token not in self._known:  # who guesses costs no look at Redis
            return None
        now = await self._now()
        if now is not self._known_of:
            self._known, self._known_of = {}, now
        if now is None:
            return None
        box = self._known.get(token)
        if box is None:
            shown = shown or self._shown(token)
            box = None if shown is None else await self._found(now, shown)
            if box is None:
                return None
            if now is self._known_of:
                self._known[token] = box
        return Stands(box=box, until_s=now.at_s + KNOWN_S)

    def _shown(self, token: str) -> str | OfMember | None:
        return self._tokens.stands_for(token, self._ctx.settings.fleet, now_s=time.time())

    async def _found(self, now: _Now, shown: str | OfMember) -> Box | None:
        if isinstance(shown, OfMember):
            return await self._members(now, shown)
        return _box(now.fleet, now.machines.get(MachineId(shown)))

    async def _members(self, now: _Now, shown: OfMember) -> Box | None:
        """Who has just joined comes here at once: the member is asked for then, not all of them."""
        fleet, member_id = now.fleet, MachineId(shown.member_id)
        pool = fleet.pools.get(PoolName(shown.pool))
        if pool is None or member_id in now.machines:
            return None
        if not shown.is_of(now.members.get(member_id)):
            async with within():
                member = await self._ctx.members.get(member_id)
            if not shown.is_of(member):
                return None
        return _box(fleet, machine_of_member(pool, member_id))

    async def _now(self) -> _Now | None:
        """What is in force, as of FRESH_S ago at most."""
        async with self._reading:
            known = self._last
            if known is None or self._clock() - known.at_s >= FRESH_S:
                async with within():
                    self._last = await self._read(known)
            return self._last

    async def _read(self, known: _Now | None) -> _Now | None:
        """What is in force now; `known` again, with another time, where nothing changed since."""
        at_s = self._clock()
        generation, good_s = await self._generation(known, at_s)
        if generation is None:
            return None
        seen = await self._ctx.members.read(known.seen if known is not None else None)
        if known is not None and known.generation is generation and known.seen is seen:
            return structs.replace(known, at_s=at_s, good_s=good_s)
        seal = SigningKey(self._ctx.layout, self._ctx.settings.fleet).control()
        full = await self._retired.added(generation, seen, seal)
        return _Now(
            at_s=at_s,
            good_s=good_s,
            generation=generation,
            seen=seen,
            fleet=full.fleet,
            machines={m.id: m for m in generation.fleet.machines},
            members={m.id: m for m in seen.members},
        )

    async def _generation(self, known: _Now | None, at_s: float) -> tuple[Generation | None, float]:
        """The one in force, and when it could be read last. Where it is damaged boxes go by the last good one: their
        jobs run on, and who is a member is read by itself.
        """
        try:
            found = await self._ctx.in_force.now()
        except (EmpError, KeyDamaged) as e:
            if known is None or at_s - known.good_s >= LAST_GOOD_S:
                raise
            self._tell(f"{e}; boxes at the gate go by generation {known.generation.number}")
            return known.generation, known.good_s
        self._tell("")
        return found, at_s

    def _tell(self, words: str) -> None:
        """Once, and again when they are others."""
        if words and words != self._told:
            log.warning("%s", words)
        self._told = words


def _box(fleet: Fleet, machine: Machine | None) -> Box | None:
    """Of the machine, if it is one that joins by itself."""
    return None if machine is None or not machine.traits.joins else box_of(fleet, machine)


def box_of(fleet: Fleet, machine: Machine) -> Box:
    return Box(
        machine_id=machine.id,
        group=machine.pool or machine.id,
        workers=frozenset(worker_id(machine.id, slot) for slot in range(machine.num_gpus)),
        services=frozenset(machine.services),
        lease_ms=int(fleet.jobs.lease_s * 1000),
    )
