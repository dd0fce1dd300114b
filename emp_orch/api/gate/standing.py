"""Whose token it is: which box of the fleet, and what it has. Known for a moment, as a box comes with many at once."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from emp_orch.api.context import Context
from emp_orch.fleet.model.fleet import Fleet, Machine, MachineId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.acl.stranger_rules import Box
from emp_orch.store.fleet.generations import Generation, read_generation
from emp_orch.store.fleet.pools.members import Members, populated
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.redis.client import within

# So long what was looked up counts: a member that was forgotten is without a way to Redis so much later.
KNOWN_S = 2.0
MOST_TOKENS = 10_000


class Standing:
    """Looks up tokens. Raises what redis-py raises, TimeoutError, and EmpError for a damaged generation or key."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tokens = JoinTokens(ctx.layout)
        self._known: OrderedDict[str, tuple[float, Box | None]] = OrderedDict()
        self._reading = asyncio.Lock()
        self._retired = RetiredPools(ctx.redis, ctx.keys)
        self._generation: tuple[float, Generation | None] = (float("-inf"), None)

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
        fleet, now_s = self._ctx.settings.fleet, time.time()
        named = self._tokens.holder(token, fleet, now_s=now_s)
        member = self._tokens.member_of(token, fleet, now_s=now_s)
        if named is None and member is None:
            return None
        generation = await self._now()
        if generation is None:
            return None
        if member is None:
            return _box(generation.fleet, named, "")
        born = {m.id: m.born_ms for m in generation.fleet.members}
        if born.get(MachineId(member.member_id)) != member.born_ms:
            return None
        return _box(generation.fleet, member.member_id, member.pool)

    async def _now(self) -> Generation | None:
        """The generation in force with its members, as of KNOWN_S ago at most."""
        async with self._reading:
            read_s, generation = self._generation
            if time.monotonic() - read_s >= KNOWN_S / 2:
                async with within():
                    generation = await self._read()
                self._generation = (time.monotonic(), generation)
            return generation

    async def _read(self) -> Generation | None:
        """Members of a pool that emp.yaml names no more are members until they have drained."""
        ctx, seal = self._ctx, SigningKey(self._ctx.layout, self._ctx.settings.fleet).control()
        generation = await read_generation(ctx.redis, ctx.keys, ctx.settings.fleet, seal)
        if generation is None:
            return None
        seen = await Members(ctx.redis, ctx.keys, ctx.settings.fleet, lambda: seal).read()
        return populated(await self._retired.added(generation, seen, seal), seen)


def _box(fleet: Fleet, machine_id: str | None, pool: str) -> Box | None:
    """Of the machine, if it is one that joins by itself, and of that pool."""
    found = next((m for m in fleet.machines if m.id == machine_id and m.pool == pool and m.traits.joins), None)
    return None if found is None else box_of(fleet, found)


def box_of(fleet: Fleet, machine: Machine) -> Box:
    return Box(
        machine_id=machine.id,
        group=machine.pool or machine.id,
        workers=frozenset(worker_id(machine.id, slot) for slot in range(machine.num_gpus)),
        services=frozenset(machine.services),
        lease_ms=int(fleet.jobs.lease_s * 1000),
    )
