"""A look at one fleet through a store that cannot write: for `emp diff`, `emp status` and `emp doctor`."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, structs

from emp_orch import settings as settings_files
from emp_orch.control.host import generation as generations
from emp_orch.control.plane.parts import Parts
from emp_orch.control.reconciler.observe import Observer
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.table import Desired, Drift, Kind, diff
from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.model.pools import JOIN
from emp_orch.fleet.plan.operations import Operation, plan
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.pauses import drained, fleet_pause
from emp_orch.layout import Layout
from emp_orch.runtimes import Runtimes, runtimes_of
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store import contract
from emp_orch.store.acl.rights import refused_write
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.status import BreakerStatus, FleetStatus, PoolStatus, RedisStatus, RolloutStatus, read_status
from emp_orch.store.redis import client
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.keys import Keys


class DriftNow(Struct, frozen=True, kw_only=True):
    """A drift and for how long the reconciler has known it; None when it has not seen it yet.

    `action` is what it does about it, `held` and `hold` why not now, `next_ms` how long until it will; `failed` is why
    the last attempt did not do it.
    """

    drift: Drift
    age_ms: int | None
    action: str = ""
    held: str = ""
    hold: Hold | None = None
    attempts: int = 0
    next_ms: int | None = None
    failed: str = ""


class Difference(Struct, frozen=True, kw_only=True):
    """`status_age_ms` is the age of the reconciler's last tick; None when there was none. `interval_ms` is the time
    between two ticks. `overrides` are the pauses and drains; `desired` has the drains in it. `breaker`, `rollout`
    and `redis` are what that tick said of them.
    """

    fleet: str
    generation: int
    desired: Desired
    observed: Observed
    drift: tuple[DriftNow, ...]
    plan: tuple[Operation, ...]
    leader: str
    paused: str
    status_age_ms: int | None
    interval_ms: int
    overrides: tuple[Override, ...] = ()
    breaker: BreakerStatus | None = None
    rollout: RolloutStatus | None = None
    pools: dict[PoolName, PoolStatus] = {}
    redis: RedisStatus = RedisStatus()
    refuses: str = ""

    @property
    def quarantined(self) -> tuple[DriftNow, ...]:
        """What emp tries no more until a person says so."""
        return tuple(d for d in self.drift if d.hold is Hold.QUARANTINE)


async def difference(layout: Layout, runtimes: Runtimes | None = None) -> Difference:
    """Compare the generation in force with what is seen now; `runtimes` are those of who has them already.

    Raises Unreachable when Redis is away, EmpError when nothing was ever applied.
    """
    settings = settings_files.load(layout)
    keys = Keys(settings.prefix)
    async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
        # The one kept on disk stands in for one that Redis lost: the reconciler will restore it.
        generation = await generations.in_force(r, keys, layout, settings.fleet)
        if generation is None:
            raise EmpError(f"fleet {settings.fleet} has no generation yet", hint="run `emp apply`")
        generation = await generations.with_members(r, keys, layout, generation)
        runtimes = runtimes_of(layout, settings) if runtimes is None else runtimes
        observer = Observer(r, keys, runtimes, fresh=False, parts=Parts(layout).look)
        damaged = await contract.look(r, keys, settings.fleet)
        try:
            observed = structs.replace(await observer.look(), damaged=damaged)
        except KeyDamaged:
            observed = await observer.blind(damaged)
        status = await read_status(r, keys, settings.fleet)
        overrides = await read_overrides(r, keys, settings.fleet, SigningKey(layout, settings.fleet).known())
        refusal = await refused_write(r, keys)
    if status is not None:
        observed = structs.replace(observed, installed=status.installed)
    machines_redis = client.address(settings.machine_redis_url)
    desired = drained(generations.as_desired(generation, redis=machines_redis), overrides)
    drifts = diff(desired, observed)
    if status is not None:
        drifts = as_the_leader_says(drifts, [i.drift for i in status.drift], desired)
    known = {item.drift.key: item for item in status.drift} if status else {}
    pause = fleet_pause(overrides)
    return Difference(
        refuses=refusal.words if refusal else "",
        fleet=settings.fleet,
        generation=generation.number,
        desired=desired,
        observed=observed,
        drift=tuple(_now(d, known.get(d.key), observed.now_ms) for d in drifts),
        plan=plan(desired, drifts),
        leader=status.leader if status else "",
        paused=pause.words if pause else "",
        status_age_ms=_status_age(observed.now_ms, status),
        interval_ms=int(generation.fleet.reconcile.interval_s * 1000),
        overrides=overrides,
        breaker=status.breaker if status else None,
        rollout=status.rollout if status else None,
        pools=status.pools if status else {},
        redis=status.redis if status else RedisStatus(),
    )


def as_the_leader_says(drifts: Iterable[Drift], said: Iterable[Drift], desired: Desired) -> tuple[Drift, ...]:
    """`drifts`, as they are seen here, with what only the leader knows of pools in its words: what a pool should have
    depends on what was seen before, and why a member is silent on its engine, which nobody else asks.
    """

    def is_leaders(drift: Drift) -> bool:
        member = desired.members.get(drift.machine_id)
        if drift.kind is not Kind.MEMBER_SILENT or member is None:
            return bool(drift.pool)
        return desired.pools[member.pool].provider != JOIN

    return (*(d for d in drifts if not is_leaders(d)), *(d for d in said if is_leaders(d)))


def _now(drift: Drift, item: Item | None, now_ms: int) -> DriftNow:
    """The drift as it is now, with what the reconciler's last tick said of it."""
    if item is None:
        return DriftNow(drift=drift, age_ms=None)
    return DriftNow(
        drift=drift,
        age_ms=_age(now_ms, item.since_ms),
        action=item.action,
        held=item.held,
        hold=item.hold,
        attempts=item.attempts,
        next_ms=None if item.next_attempt_ms is None else max(0, item.next_attempt_ms - now_ms),
        failed=item.failed,
    )


def _age(now_ms: int, since_ms: int | None) -> int | None:
    return None if since_ms is None else max(0, now_ms - since_ms)


def _status_age(now_ms: int, status: FleetStatus | None) -> int | None:
    return _age(now_ms, status.at_ms if status else None)
