"""Whose token it is: which box of the fleet, and what it has. Known for a moment, as a box comes with many at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from msgspec import Struct, structs

from emp_orch.api.context import Context
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

# So long what was looked up counts: a member that was forgotten is without a way to Redis so much later.
KNOWN_S = 2.0
MOST_TOKENS = 10_000


class _Now(Struct, frozen=True, kw_only=True):
    """The fleet with its machines by id, and the members of its pools, as they were read at `at_s`. A pool that
    emp.yaml names no more is one until its members have drained.
    """

    at_s: float
    generation: Generation  # as emp.yaml has it
    seen: Seen
    fleet: Fleet
    machines: dict[MachineId, Machine]
    members: dict[MachineId, Member]


class Standing:
    """Looks up tokens. Raises what redis-py raises, TimeoutError, and EmpError for a damaged generation or key."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tokens = JoinTokens(ctx.layout)
        self._known: OrderedDict[str, tuple[float, Box | None]] = OrderedDict()
        self._reading = asyncio.Lock()
        self._retired = RetiredPools(ctx.redis, ctx.keys)
        self._last: _Now | None = None

    async def of(self, token: str) -> Box | None:
        """The box that shows it; None: it is nobody's, or nobody's any more."""
        now_s = time.monotonic()
        kept = self._known.get(token)
        if kept is not None and now_s < kept[0]:
            return kept[1]
        box = await self._found(token)
        if box is None:
            self._known.pop(token, None)  # who guesses fills nothing
            return None
        self._known[token] = (now_s + KNOWN_S, box)
        self._known.move_to_end(token)
        while len(self._known) > MOST_TOKENS:
            self._known.popitem(last=False)
        return box

    async def _found(self, token: str) -> Box | None:
        shown = self._tokens.stands_for(token, self._ctx.settings.fleet, now_s=time.time())
        if shown is None or (now := await self._now()) is None:
            return None
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
        """What is in force, as of KNOWN_S / 2 ago at most."""
        async with self._reading:
            known = self._last
            if known is None or time.monotonic() - known.at_s >= KNOWN_S / 2:
                async with within():
                    self._last = await self._read(known)
            return self._last

    async def _read(self, known: _Now | None) -> _Now | None:
        """What is in force now; `known` again, with another time, where nothing changed since."""
        at_s = time.monotonic()
        generation = await self._ctx.in_force.now()
        if generation is None:
            return None
        seen = await self._ctx.members.read(known.seen if known is not None else None)
        if known is not None and known.generation is generation and known.seen is seen:
            return structs.replace(known, at_s=at_s)
        seal = SigningKey(self._ctx.layout, self._ctx.settings.fleet).control()
        full = await self._retired.added(generation, seen, seal)
        return _Now(
            at_s=at_s,
            generation=generation,
            seen=seen,
            fleet=full.fleet,
            machines={m.id: m for m in generation.fleet.machines},
            members={m.id: m for m in seen.members},
        )


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
