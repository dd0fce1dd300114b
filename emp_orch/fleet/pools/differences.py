"""Sizes → how the pools differ from them: too few, too many, and who is gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.model.fleet import MachineId, Pool, PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.pools import JOIN, Box, BoxState, SeenPool
from emp_orch.fleet.pools.memory import AWAITED_MS
from emp_orch.fleet.pools.size import PoolSize, who_goes
from emp_orch.fleet.pools.standing import Standing

# Members that are asked for by one operation.
AT_ONCE = 10
MAX_NAMED = 3
MAX_ORPHANS = 100
FORMER = "its box is of an engine that the pool had before"
BY_THEMSELVES = "its boxes are started by somebody else; `emp pool join {}` prints the line"


def pool_drift(sizes: Mapping[PoolName, PoolSize], desired: Desired, observed: Observed) -> tuple[Drift, ...]:
    """Of all pools, in the order of emp.yaml."""
    found: list[Drift] = []
    for name, size in sizes.items():
        pool, seen = desired.pools[name], observed.pools.get(name, SeenPool())
        if pool.provider == JOIN:
            found += _joining(pool, size, observed.now_ms)
            if seen.former or any(m.leaving for m in size.members):
                found += _over(pool, size)
            if seen.boxes is not None:
                found += _gone(pool, size, seen, desired)
        else:
            found += _short(pool, size, seen, observed.now_ms)
            found += _over(pool, size)
            found += _gone(pool, size, seen, desired)
    return tuple(found)


def _joining(pool: Pool, size: PoolSize, now_ms: int) -> Iterator[Drift]:
    """Who has no engine to ask can only say that too few are there."""
    since_ms, there = size.memory.short_ms, sum(m.in_ for m in size.members if m.counts)
    if since_ms is not None and now_ms - since_ms >= AWAITED_MS:
        yield _of_pool(pool, f"{min(pool.min_size, size.wanted)} at least", there, BY_THEMSELVES.format(pool.name))


def _short(pool: Pool, size: PoolSize, seen: SeenPool, now_ms: int) -> Iterator[Drift]:
    """Fewer than wanted; or all were asked for, and some have not come for long."""
    lacking = size.wanted - size.there
    if lacking > 0:
        # Who is on the way out is still a box.
        count = max(0, min(lacking, AT_ONCE, pool.max_size - len(size.members)))
        why = size.why if count else f"{size.why}; others are on their way out first"
        cause = f"{why}; its engine says: {seen.error}" if seen.error else why
        yield _of_pool(pool, f"{size.wanted}", size.there, cause, count)
        return
    late = [m for m in size.members if m.counts and m.expected and now_ms - m.member.born_ms >= AWAITED_MS]
    if late:
        there = size.there - size.expected
        yield _of_pool(pool, f"{size.wanted}", there, _awaited(late, seen))


def _awaited(late: list[Standing], seen: SeenPool) -> str:
    """Why members that were asked for do not come, in the engine's own words."""
    words = sorted({m.box.words for m in late if m.box is not None and m.box.words})
    pending = sum(m.box is not None and m.box.state is BoxState.PENDING for m in late)
    said = "; ".join(words[:MAX_NAMED]) or seen.error
    if not said:
        said = "its engine gives no place yet" if pending else "their boxes run and have not joined"
    return f"{len(late)} asked for {AWAITED_MS // 1000} s ago or more: {said}"


def _of_pool(pool: Pool, want: str, there: int, cause: str, count: int = 0) -> Drift:
    return Drift(
        kind=Kind.POOL_SHORT,
        machine_id=MachineId(pool.name),
        subject=pool.name,
        desired=f"{want} members",
        observed=f"{there} there",
        cause=cause,
        origin=pool.origin,
        pool=pool.name,
        count=count,
    )


def _over(pool: Pool, size: PoolSize) -> Iterator[Drift]:
    """Who is to go, and who is on the way out. `seen_ms` is set where it holds nothing any more."""
    chosen = set(who_goes(size)) if pool.provider != JOIN else set()
    for one in size.members:
        member = one.member
        if one.gone or not (one.leaving or one.former or member.id in chosen):
            continue
        if one.leaving:
            state = "holds nothing" if one.empty else "finishes its job" if one.busy else "ends its workers"
            cause = member.why or "it is to go"
        else:
            state = "never joined" if one.expected else "away" if one.away else "at work" if one.busy else "idle"
            cause = FORMER if one.former else size.why
        yield _of_member(
            *(Kind.POOL_OVER, pool, member.id, f"{size.wanted} of {pool.name}", state, cause),
            seen_ms=member.leaving_ms if one.leaving and one.empty else None,
        )


def _gone(pool: Pool, size: PoolSize, seen: SeenPool, desired: Desired) -> Iterator[Drift]:
    """Members that will not be back, and boxes that are nobody's."""
    for one in size.members:
        if one.gone:
            yield _of_member(Kind.MEMBER_GONE, pool, one.member.id, f"a member of {pool.name}", "gone", one.gone)
    for box in _orphans(seen.boxes or (), pool, desired):
        words = f"{box.state}{f': {box.words}' if box.words else ''}"
        cause = f"its engine has a box for {box.member_id}, which is no member any more"
        yield _of_member(Kind.MEMBER_GONE, pool, box.member_id, f"no box in {pool.name}", words, cause)


def _orphans(boxes: Iterable[Box], pool: Pool, desired: Desired) -> list[Box]:
    found = [b for b in boxes if b.member_id not in desired.members and b.member_id.startswith(f"{pool.name}-")]
    return sorted(found, key=lambda b: b.member_id)[:MAX_ORPHANS]


def _of_member(
    kind: Kind, pool: Pool, member_id: MachineId, want: str, got: str, cause: str, *, seen_ms: int | None = None
) -> Drift:
    return Drift(
        kind=kind,
        machine_id=member_id,
        subject=member_id,
        desired=want,
        observed=got,
        cause=cause,
        origin=pool.origin,
        pool=pool.name,
        seen_ms=seen_ms,
    )
