"""What is shown of pools: how they stand, and who their members are."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Member, Pool, PoolName
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.status import FleetStatus, PoolStatus
from emp_orch.web.times import rfc3339


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool of `least` to `most` members. `wanted` None: no reconciler has looked at it yet, and all that follows is
    unknown. `there`: members that are there or were asked for, and are not to go; of these `expected` have not joined
    yet and `ready` take jobs; `leaving` are on their way out. `why` it is that size, `coming` what it will be before
    long. `waiting` jobs that it could run, `running` those on it. `engine`: what that says is wrong. `order`: the size
    that a person ordered, and why. `origin` is empty for a pool that emp.yaml names no more.
    """

    name: str
    provider: str
    least: int
    most: int
    num_gpus: int = 0
    services: tuple[str, ...] = ()
    origin: str = ""
    wanted: int | None = None
    there: int = 0
    expected: int = 0
    ready: int = 0
    leaving: int = 0
    why: str = ""
    coming: str = ""
    waiting: int = 0
    running: int = 0
    engine: str = ""
    order: str = ""


class MemberView(Struct, frozen=True, kw_only=True):
    """A machine of a pool. `state`: expected, in, or left (in good order). `leaving`: since when it is to go; `why`
    says so in words. `name`: what its box calls itself.
    """

    id: str
    pool: str
    state: str
    name: str
    why: str
    born: str
    joined: str | None
    leaving: str | None


def member_view(member: Member) -> MemberView:
    return MemberView(
        id=member.id,
        pool=member.pool,
        state=member.state,
        name=member.name,
        why=member.why,
        born=rfc3339(member.born_ms),
        joined=rfc3339(member.joined_ms) if member.joined_ms else None,
        leaving=rfc3339(member.leaving_ms) if member.leaving_ms else None,
    )


def pool_views(generation: Generation | EmpError | None, status: FleetStatus | EmpError | None) -> dict[str, PoolView]:
    """By name: those of the generation, then those that are on their way out."""
    known = generation.fleet.pools if isinstance(generation, Generation) else {}
    pools = {name: pool for name, pool in known.items() if pool.origin}  # another stands in emp.yaml no more
    return views_of(pools, status.pools if isinstance(status, FleetStatus) else {})


def views_of(pools: Mapping[PoolName, Pool], said: Mapping[PoolName, PoolStatus]) -> dict[str, PoolView]:
    """As `pool_views`; `said` is the leader's word."""
    names = dict.fromkeys((*pools, *said))
    return {name: _said(name, pools.get(name), said[name]) if name in said else _unseen(pools[name]) for name in names}


def _said(name: PoolName, pool: Pool | None, said: PoolStatus) -> PoolView:
    """As the leader saw it; `pool` None: emp.yaml names it no more."""
    return PoolView(
        name=name,
        provider=pool.provider if pool else said.provider,
        least=pool.min_size if pool else said.least,
        most=pool.max_size if pool else said.most,
        num_gpus=pool.template.num_gpus if pool else 0,
        services=tuple(pool.template.services) if pool else (),
        origin=pool.origin if pool else "",
        wanted=said.wanted,
        there=said.there,
        expected=said.expected,
        ready=said.ready,
        leaving=said.leaving,
        why=said.why,
        coming=said.coming,
        waiting=said.waiting,
        running=said.running,
        engine=said.engine,
        order=said.order,
    )


def _unseen(pool: Pool) -> PoolView:
    """As emp.yaml has it."""
    return PoolView(
        name=pool.name,
        provider=pool.provider,
        least=pool.min_size,
        most=pool.max_size,
        num_gpus=pool.template.num_gpus,
        services=tuple(pool.template.services),
        origin=pool.origin,
    )
