"""The size that a pool should have, and why, in words.

What an order says holds. Else it follows the jobs that wait for the pool and those that run on it, within min and max,
and only once more are wanted for `up_after`, or fewer for `down_after`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

from msgspec import Struct, structs

from emp_orch.fleet.drift.incremental import in_full
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId, Pool, PoolName
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.pools import JOIN, SeenPool
from emp_orch.fleet.pools.memory import PoolMemory, hungered, is_starved
from emp_orch.fleet.pools.shares import Shares, gpus_of, shared
from emp_orch.fleet.pools.standing import Standing, standings
from emp_orch.fleet.pools.windows import follow


class PoolSize(Struct, frozen=True, kw_only=True):
    """A pool as it is and as it should be. `wanted` members are to be there; `there` counts those that are or were
    asked for and are not to go, of which `expected` have not joined yet and `ready` take jobs. `order`: what a person
    said. `why` in words, `coming` what it will be before long. `memory` is that after this look.
    """

    name: PoolName
    wanted: int
    there: int
    expected: int
    ready: int
    why: str
    members: tuple[Standing, ...]
    memory: PoolMemory
    coming: str = ""
    order: Override | None = None

    @property
    def in_words(self) -> str:
        """`12 jobs wait, 1 a GPU: 12 wanted, 3 there; up to 12 in 9 s`."""
        return f"{self.why}{self.coming}"


def sizes(
    desired: Desired,
    observed: Observed,
    before: Mapping[PoolName, PoolMemory],
    overrides: Iterable[Override] = (),
) -> dict[PoolName, PoolSize]:
    """Of every pool of the generation."""
    orders = {o.pool: o for o in overrides if o.kind is OverrideKind.SCALE}
    observed = _of_members(desired, observed)
    members = {name: standings(name, desired, observed) for name in desired.pools}
    running = {name: sum(m.jobs for m in found if m.counts) for name, found in members.items()}
    starved = {n: _boxes(members[n]) for n in members if n in before and is_starved(before[n], observed.now_ms)}
    held = {n: _held(desired.pools[n], order, members[n]) for n, order in orders.items() if n in desired.pools}
    shares = shared(observed.waiting, desired.pools, running, starved, held)
    found = {}
    for name, pool in desired.pools.items():
        jobs = shares.jobs[name], running[name]
        size = _sized(pool, members[name], jobs, observed, before.get(name), orders.get(name))
        since_ms = size.memory.starved_ms
        waits_ms = None if since_ms is None or name not in starved else observed.now_ms - since_ms
        found[name] = structs.replace(size, why=f"{size.why}{_handed(name, shares, waits_ms)}")
    return found


def _boxes(members: Iterable[Standing]) -> int:
    """How many have a box, as far as anybody knows."""
    return sum(m.counts and not m.away for m in members)


def _held(pool: Pool, order: Override, members: Iterable[Standing]) -> int:
    """How many members a pool has by an order. Boxes that somebody else started stay, whatever is ordered."""
    return max(order.size, _boxes(members)) if pool.provider == JOIN else order.size


def _handed(name: PoolName, shares: Shares, waits_ms: int | None) -> str:
    """What other pools run for it, and what it runs for others: `; no box came for 2 min: spot takes 5 of its jobs`."""
    told = [f"{_jobs_of(n, giver)} too" for giver, n in shares.taken(name).items()]
    takers = ", ".join(f"{taker} takes {n} of its jobs" for taker, n in shares.handed.get(name, {}).items())
    if takers:
        told.append(takers if waits_ms is None else f"no box came for {waits_ms // 60_000} min: {takers}")
    return "".join(f"; {words}" for words in told)


def _jobs_of(count: int, giver: PoolName) -> str:
    return f"{count} of them {'is' if count == 1 else 'are'} {giver}'s"


def _of_members(desired: Desired, observed: Observed) -> Observed:
    """What is seen of members, as a look at everything would have it."""
    workers = (worker_id(i, slot) for i in desired.members for slot in range(_slots(i, desired)))
    machines = {i: m for i in desired.members if (m := observed.machines.get(i)) is not None}
    seen = {w: found for w in workers if (found := observed.workers.get(w)) is not None}
    return in_full(structs.replace(observed, machines=machines, workers=seen), desired.stale_after_ms)


def _slots(member_id: MachineId, desired: Desired) -> int:
    machine = desired.machines.get(member_id)
    return machine.num_gpus if machine is not None else 0


def _sized(
    pool: Pool,
    members: tuple[Standing, ...],
    jobs: tuple[int, int],
    observed: Observed,
    before: PoolMemory | None,
    order: Override | None,
) -> PoolSize:
    """`jobs`: that wait for it, and that run on it."""
    there = [m for m in members if m.counts]
    memory = before or PoolMemory(size=len(there))
    least, most = (min(order.size, pool.max_size),) * 2 if order else (pool.min_size, pool.max_size)
    memory, why = _followed(pool, memory, jobs, (least, most), observed)
    now_ms = observed.now_ms
    few = sum(m.in_ for m in there) < min(pool.min_size, memory.size)
    memory = structs.replace(
        memory,
        idle={m.member.id: memory.idle.get(m.member.id, now_ms) for m in members if not m.busy},
        short_ms=(now_ms if memory.short_ms is None else memory.short_ms) if few else None,
    )
    memory = hungered(memory, _boxes(members), now_ms)
    if order is not None:
        why = f"ordered: {order.words}"
        why += f"; at most {pool.max_size}" if order.size > pool.max_size else ""
    return PoolSize(
        name=pool.name,
        wanted=memory.size,
        there=len(there),
        expected=sum(m.expected for m in there),
        ready=sum(m.ready for m in there),
        why=f"{why}: {memory.size} wanted, {len(there)} there",
        coming=_coming(memory, pool, now_ms),
        members=members,
        memory=memory,
        order=order,
    )


def _followed(
    pool: Pool, memory: PoolMemory, jobs: tuple[int, int], bounds: tuple[int, int], observed: Observed
) -> tuple[PoolMemory, str]:
    """The size after this look, and what it comes from."""
    least, most = bounds
    bounded = min(most, max(least, memory.size))
    if least == most:
        return structs.replace(memory, size=bounded, up=(), down=()), "emp.yaml says so"
    if (
        observed.pools.get(pool.name, SeenPool()).backlog is None
    ):  # what is wanted is not known: what was wanted before has not been since
        return structs.replace(memory, size=bounded, up=(), down=()), "nobody could read the queue"
    needed = members_for(pool, sum(jobs))
    found = follow(
        *(min(most, max(least, needed)), bounded, memory.up, memory.down),
        now_ms=observed.now_ms,
        up_after_ms=int(pool.scale.up_after_s * 1000),
        down_after_ms=int(pool.scale.down_after_s * 1000),
    )
    why = _jobs(pool, *jobs)
    if needed > most:
        why += f", at most {most}"
    elif needed < least:
        why += f", at least {least}"
    return structs.replace(memory, size=found.size, up=found.up, down=found.down), why


def members_for(pool: Pool, jobs: int) -> int:
    """How many members so many jobs need."""
    return ceil(jobs / (pool.scale.jobs_per_gpu * gpus_of(pool)) - 1e-9)


def _jobs(pool: Pool, waiting: int, running: int) -> str:
    """What wants them: `12 jobs wait, 3 run, 1 a GPU`."""
    told = [f"{waiting} job{' waits' if waiting == 1 else 's wait'}"] if waiting or not running else []
    told += [f"{running} run{'s' if running == 1 else ''}"] if running else []
    gpus = gpus_of(pool)
    each = f"{pool.scale.jobs_per_gpu:g} a GPU" + (f", {gpus} GPUs a member" if gpus > 1 else "")
    return f"{', '.join(told)}, {each}"


def _coming(memory: PoolMemory, pool: Pool, now_ms: int) -> str:
    """What it will be before long, if the same stays wanted."""
    if memory.up:
        first, after_s, word = memory.up[0], pool.scale.up_after_s, "up"
    elif memory.down:
        first, after_s, word = memory.down[0], pool.scale.down_after_s, "down"
    else:
        return ""
    left_s = max(0.0, first.since_ms / 1000 + after_s - now_ms / 1000)
    return f"; {word} to {first.level} in {_time(left_s)}"


def _time(s: float) -> str:
    return f"{ceil(s)} s" if s < 100 else f"{ceil(s / 60)} min"


def who_goes(size: PoolSize) -> tuple[MachineId, ...]:
    """Those to let go now, of which none runs a job: first who is not there, as far as its engine knows, the last asked
    for before the others; then those that are idle for the longest. Who is silent otherwise may run one, and is left to
    its lease; as it may be dead, nobody goes in its place.
    """
    alive = [m for m in size.members if m.counts and (m.away or m.in_)]
    surplus = max(0, len(alive) - size.wanted)
    free = [m for m in alive if not m.busy]
    idle = size.memory.idle

    def turn(m: Standing) -> tuple[bool, int, str]:
        return (not m.away, -m.member.born_ms if m.away else idle[m.member.id], m.member.id)

    return tuple(m.member.id for m in sorted(free, key=turn)[:surplus])
