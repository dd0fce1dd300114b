"""What people order beside emp.yaml: pause, drain, resume, a pool's size. One way for API and CLI: checked, written,
announced.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct

from emp_orch.errors import UsageError
from emp_orch.fleet.model.fleet import MachineId, Pool, PoolName, ProgramName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.names import UnknownName, names_of
from emp_orch.seals import Seal
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.overrides import lift_override, lift_overrides, put_override, read_overrides
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.fleet.requests import Request, Verb, ask
from emp_orch.store.fleet.status import BreakerStatus, read_status
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys

MAX_REASON = 500


class Scope(Struct, frozen=True, kw_only=True):
    """The whole fleet, one machine, or one program of it. Raises UsageError for a program without its machine."""

    machine_id: str | None = None
    program: str | None = None

    def __post_init__(self) -> None:
        if self.program is not None and self.machine_id is None:
            raise UsageError("program: name its machine too")

    @property
    def text(self) -> str:
        return "/".join(filter(None, (self.machine_id, self.program))) or "fleet"


class Resumed(Struct, frozen=True, kw_only=True):
    """`lifted`: keys of the pauses and drains on `scope` that stand no more; `left`: those that still do.
    `closes_breaker`: the leader was asked to."""

    scope: Scope
    lifted: tuple[str, ...]
    closes_breaker: bool
    left: tuple[Override, ...]


class Orders:
    """Orders for one fleet, by who holds its key.

    Raises UnknownName, UsageError, or what redis-py raises when Redis is away.
    """

    def __init__(self, r: Client, keys: Keys, fleet: str, seal: Seal) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._seal = seal
        self._events = Events(r, keys)

    async def pause(self, scope: Scope, *, reason: str, by: str) -> Override:
        """Nothing within `scope` is started, stopped or changed by the reconciler until `resume`."""
        pause = await self._put(OverrideKind.PAUSE, scope, reason, by)
        await self._announce("reconcile_paused", pause)
        return pause

    async def drain(self, machine_id: str, *, reason: str, by: str) -> Override:
        """The machine's workers finish their jobs and end; all else runs on. `resume` brings them back."""
        scope = await self._named(Scope(machine_id=machine_id))
        if scope.program is not None:
            raise UsageError(
                f"{scope.text} is a program of machine {scope.machine_id}, and a drain is of machines only",
                hint=f"name the machine: {scope.machine_id}",
            )
        drain = await self._put(OverrideKind.DRAIN, scope, reason, by)
        await self._announce("machine_drained", drain)
        return drain

    async def scale(self, pool: str, size: int | None, *, reason: str, by: str) -> Override | None:
        """Hold `pool` at `size` members until another word; None: it follows its queue again. What stands, or stood."""
        _check_text("reason", reason)
        _check_text("by", by)
        known = await self._pool(pool)
        before = [o for o in await read_overrides(self._r, self._keys, self._fleet) if o.pool == known.name]
        if size is None:
            for order in before:
                await lift_override(self._r, self._keys, self._fleet, order.key)
            if before:
                await self._announce("pool_scaled", before[0])
            return before[0] if before else None
        if not 0 <= size <= known.max_size:
            raise UsageError(
                f"pool {known.name} has at most {known.max_size} members, not {size}",
                hint=f"raise its size in emp.yaml ({known.origin}), then `emp apply`",
            )
        order = Override(
            kind=OverrideKind.SCALE, pool=known.name, size=size, reason=reason, by=by, at=await self._now()
        )
        await put_override(self._r, self._keys, self._fleet, order, self._seal)
        await self._announce("pool_scaled", order)
        return order

    async def _pool(self, name: str) -> Pool:
        generation = await read_with_members(self._r, self._keys, self._fleet)
        known = generation.fleet.pools if generation is not None else {}
        pools = {n: pool for n, pool in known.items() if pool.origin}  # another stands in emp.yaml no more
        if PoolName(name) not in pools:
            raise UnknownName(f"no pool {name}", hint=f"there are: {', '.join(pools) or 'none'}")
        return pools[PoolName(name)]

    async def resume(self, scope: Scope, *, by: str) -> Resumed:
        """Lift what stands on `scope` itself; for the whole fleet an open breaker too."""
        _check_text("by", by)
        # As it is named first: what stands on a machine that is gone can be lifted too.
        lifted = await lift_overrides(self._r, self._keys, self._fleet, scope=scope.text, seal=self._seal)
        if not lifted:
            scope = await self._named(scope)
            lifted = await lift_overrides(self._r, self._keys, self._fleet, scope=scope.text, seal=self._seal)
        closes = scope.machine_id is None and await self.breaker() is not None
        if closes:
            await ask(self._r, self._keys, self._fleet, Request(verb=Verb.CLOSE_BREAKER, by=by), self._seal)
        if lifted or closes:
            about = {"machine_id": scope.machine_id} if scope.machine_id else {}
            await self._events.append("reconcile_resumed", fleet=self._fleet, scope=scope.text, by=by, **about)
        left = await read_overrides(self._r, self._keys, self._fleet)
        return Resumed(scope=scope, lifted=tuple(sorted(lifted)), closes_breaker=closes, left=left)

    async def breaker(self) -> BreakerStatus | None:
        """The open breaker, as the leader published it."""
        status = await read_status(self._r, self._keys, self._fleet)
        return status.breaker if status else None

    async def _put(self, kind: OverrideKind, scope: Scope, reason: str, by: str) -> Override:
        _check_text("reason", reason)
        _check_text("by", by)
        scope = await self._named(scope)
        override = Override(
            kind=kind,
            machine_id=MachineId(scope.machine_id) if scope.machine_id else None,
            program=ProgramName(scope.program) if scope.program else None,
            reason=reason,
            by=by,
            at=await self._now(),
        )
        await put_override(self._r, self._keys, self._fleet, override, self._seal)
        return override

    async def _now(self) -> str:
        """By Redis' clock, RFC 3339."""
        at = datetime.fromtimestamp(await time_ms(self._r) / 1000, UTC)
        return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _named(self, scope: Scope) -> Scope:
        """`scope` by the names that the generation in force has. Raises UnknownName for what it does not have."""
        if scope.machine_id is None:
            return scope
        generation = await read_with_members(self._r, self._keys, self._fleet)
        if generation is None:
            raise UnknownName(f"fleet {self._fleet} has no generation yet", hint="run `emp apply`")
        name = names_of(generation.fleet).find([scope.machine_id, *([scope.program] if scope.program else [])])
        if name.own:
            raise UnknownName(
                f"{name.program} is emp's own program on {name.machine}: it starts and ends with the machine",
                hint=f"name the machine: {name.machine}",
            )
        return Scope(machine_id=name.machine, program=name.program)

    async def _announce(self, type_: str, order: Override) -> None:
        about = {"machine_id": order.machine_id} if order.machine_id else {}
        await self._events.append(
            type_, fleet=self._fleet, scope=order.scope, reason=order.reason, by=order.by, **about
        )


def _check_text(field: str, text: str) -> None:
    if len(text) > MAX_REASON:
        raise UsageError(f"{field}: longer than {MAX_REASON} characters")
