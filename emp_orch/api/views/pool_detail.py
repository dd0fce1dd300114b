"""A pool with its members, each with what it is at: `GET /api/pools/NAME`, and `emp pools --json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct, structs

from emp_orch.api.views.pools import MemberView, PoolView, member_view
from emp_orch.fleet.model.fleet import MachineId, Member
from emp_orch.fleet.model.observed import SeenMachine
from emp_orch.fleet.pools.states import STATES, state_of


class MemberDetail(MemberView, frozen=True, kw_only=True):
    """`at`: ready, starting, expected, leaving, silent or left."""

    at: str


class PoolDetail(PoolView, frozen=True, kw_only=True):
    """`counts`: how many members are at what."""

    counts: dict[str, int]
    members: tuple[MemberDetail, ...]


class Heard(Struct, frozen=True, kw_only=True):
    """What machines said last; who said nothing for `stale_after_ms` is silent."""

    machines: Mapping[MachineId, SeenMachine]
    now_ms: int
    stale_after_ms: int

    def at(self, member: Member) -> str:
        """What it is at, in a word."""
        seen = self.machines.get(member.id)
        return state_of(member, seen, now_ms=self.now_ms, stale_after_ms=self.stale_after_ms)


def pool_detail(view: PoolView, members: Iterable[Member], heard: Heard) -> PoolDetail:
    """`view` with those of `members` that are its own, by id."""
    found = sorted((m for m in members if m.pool == view.name), key=lambda m: m.id)
    detailed = tuple(MemberDetail(**structs.asdict(member_view(m)), at=heard.at(m)) for m in found)
    counted = Counter(m.at for m in detailed)
    counts = {state: counted[state] for state in STATES if counted[state]}
    return PoolDetail(**structs.asdict(view), counts=counts, members=detailed)
