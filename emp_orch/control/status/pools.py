"""The pools of a fleet as one look sees them: how many members of how many, at what, and what the leader says of it."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from emp_orch.control.status.inspect import Difference
from emp_orch.fleet.model.fleet import Member, Pool
from emp_orch.fleet.pools import states
from emp_orch.store.fleet.status import PoolStatus


class PoolNow(Struct, frozen=True, kw_only=True):
    """`members`: how many are at what, by a word. `said` is the leader's last word; None where it has none."""

    name: str
    provider: str
    least: int
    most: int
    members: dict[str, int]
    said: PoolStatus | None

    @property
    def size(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}..{self.most}"

    @property
    def there(self) -> int:
        return sum(n for state, n in self.members.items() if state != states.LEFT)

    @property
    def in_words(self) -> str:
        """`3 of 0..40: ready 2, silent 1`."""
        states = ", ".join(f"{state} {n}" for state, n in self.members.items())
        return f"{self.there} of {self.size}" + (f": {states}" if states else "")


def pools_now(found: Difference) -> tuple[PoolNow, ...]:
    """In the order of emp.yaml."""
    return tuple(_now(pool, found) for pool in found.desired.pools.values())


def _now(pool: Pool, found: Difference) -> PoolNow:
    counted = Counter(state_of(m, found) for m in found.desired.members.values() if m.pool == pool.name)
    return PoolNow(
        name=pool.name,
        provider=pool.provider,
        least=pool.min_size,
        most=pool.max_size,
        members={state: counted[state] for state in states.STATES if counted[state]},
        said=found.pools.get(pool.name),
    )


def state_of(member: Member, found: Difference) -> str:
    """What one member is at."""
    observed = found.observed
    seen = observed.machines.get(member.id)
    return states.state_of(member, seen, now_ms=observed.now_ms, stale_after_ms=found.desired.stale_after_ms)
