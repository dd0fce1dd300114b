"""Silence of members of pools: nobody named them, so nobody misses them; one that stays away is forgotten."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import BOOT_GRACE_MS, NOBODY_WAS_HEARD, age, listening_since, may_be_alive
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool, PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.pools import JOIN, Box, BoxState

SHUT_OUT = "emp shut it out, and it may not join with what it was given"


class Gone(StrEnum):
    """How a member went, as the journal tells it."""

    LEFT = "left in good order"
    NEVER_JOINED = "never joined"
    VANISHED = "vanished"
    REMOVED = "removed"


def how_gone(member: Member, *, asked: bool) -> Gone:
    """`asked`: somebody said so, whatever it was at."""
    if asked:
        return Gone.REMOVED
    match member.state:
        case MemberState.LEFT:
            return Gone.LEFT
        case MemberState.EXPECTED:
            return Gone.NEVER_JOINED
        case MemberState.IN:
            return Gone.VANISHED


def silent_member(machine: DesiredMachine, heard_ms: int | None, desired: Desired, observed: Observed) -> Drift | None:
    """What is to be said of a member whose report is not there, or old; None while it is just awaited. `heard_ms`: its
    last report. With `seen_ms` it has been away for long enough to be forgotten.
    """
    member = desired.members[machine.id]
    pool = desired.pools[member.pool]

    def silent(got: str, why: str, *, over: bool) -> Drift:
        return Drift(
            kind=Kind.MEMBER_SILENT,
            machine_id=machine.id,
            subject=machine.id,
            desired="reporting",
            observed=got,
            cause=why,
            origin=machine.origin,
            seen_ms=(heard_ms or 0) if over else None,
            began_ms=heard_ms or None,
        )

    match member.state:
        case MemberState.LEFT:
            why = member.why or "its box ended as it was told"
            return silent(str(Gone.LEFT), why, over=not _comes_back(member, pool, observed))
        case MemberState.EXPECTED:
            return _expected(member, pool, observed, silent(str(Gone.NEVER_JOINED), "", over=True))
        case MemberState.IN:
            pass
    if heard_ms is None and 0 <= observed.now_ms - member.joined_ms < BOOT_GRACE_MS:
        return _just_joined(machine)
    got = f"last report {age(observed.now_ms - heard_ms)} ago" if heard_ms else "not reporting yet"
    if machine.id in observed.shut_out:
        return silent(got, SHUT_OUT, over=True)
    since_ms = max(heard_ms or 0, member.joined_ms, *listening_since(machine.id, observed))
    if heard_ms and may_be_alive(heard_ms, machine.id, desired, observed):
        return silent(got, NOBODY_WAS_HEARD, over=False)
    box = box_of(member.id, pool.name, observed)
    if box is not None and box.state is BoxState.PENDING:  # started anew, it is the same member
        return silent(got, f"its engine has no place for its box: {box.words or 'it waits'}", over=False)
    over = observed.now_ms - since_ms >= _forget_after_ms(pool)
    why = f"its box is off, or cannot reach the API; after {pool.forget_after_s:g} s of silence it is forgotten"
    return silent(got, why, over=over)


def _expected(member: Member, pool: Pool, observed: Observed, drift: Drift) -> Drift | None:
    """One that was asked for. While its box waits for a place, or its engine cannot tell, it is awaited."""
    waited_ms = observed.now_ms - member.born_ms
    seen = observed.pools.get(pool.name)
    box = box_of(member.id, pool.name, observed)
    unknown = seen is not None and seen.boxes is None and seen.error
    if unknown or waited_ms < _forget_after_ms(pool):
        return None
    if box is not None and box.state in (BoxState.PENDING, BoxState.UNKNOWN):
        return None
    says = f"; its engine says: {box.state}{f', {box.words}' if box.words else ''}" if box is not None else ""
    return structs.replace(drift, cause=f"it was asked for {age(waited_ms)} ago, and its box never joined{says}")


def _comes_back(member: Member, pool: Pool, observed: Observed) -> bool:
    """Whether one that left waits for its next box: its engine starts it again, or cannot tell. Where the box runs, it
    is for `patience_ms` that this is so.
    """
    if pool.provider == JOIN or member.leaving_ms:
        return False
    seen = observed.pools.get(pool.name)
    if seen is None or seen.boxes is None:
        return True
    box = box_of(member.id, pool.name, observed)
    return box is not None and box.state in (BoxState.PENDING, BoxState.UNKNOWN)


def _just_joined(machine: DesiredMachine) -> Drift:
    return Drift(
        kind=Kind.MACHINE_BOOTING,
        machine_id=machine.id,
        subject=machine.id,
        desired="reporting",
        observed="not reporting yet",
        cause="its box has just joined",
        origin=machine.origin,
    )


def patience_ms(drift: Drift, desired: Desired, observed: Observed) -> int:
    """How long a silence must have stood before the member is forgotten: one whose box runs may be at its first start,
    or at one after it left, and how long it has run is not known; nor is it how long one is silent that is in and took
    its report away, as it does before it starts anew or says that it goes.
    """
    member = desired.members.get(drift.machine_id)
    if drift.kind is not Kind.MEMBER_SILENT or member is None:
        return 0
    if member.state is MemberState.IN:
        withdrawn = drift.seen_ms == 0 and drift.machine_id not in observed.shut_out
        return _forget_after_ms(desired.pools[member.pool]) if withdrawn else 0
    if member.leaving_ms:
        return 0
    box = box_of(member.id, member.pool, observed)
    return _forget_after_ms(desired.pools[member.pool]) if box is not None and box.state is BoxState.RUNNING else 0


def box_of(member_id: MachineId, pool: PoolName, observed: Observed) -> Box | None:
    """What its engine says of a member's box; None where it has none, or nobody knows."""
    seen = observed.pools.get(pool)
    return next((b for b in (seen.boxes if seen else None) or () if b.member_id == member_id), None)


def pool_of(machine_id: str, pools: Iterable[PoolName]) -> PoolName | None:
    """The pool whose member a machine of this id was, or could be."""
    return max((p for p in pools if machine_id.startswith(f"{p}-")), key=len, default=None)


def awaited(desired: Desired, drifts: Iterable[Drift]) -> frozenset[MachineId]:
    """Members that are not there: asked for and not come, gone, or silent. Nobody counts on them, and nobody waits."""
    if not desired.members:
        return frozenset()
    silent = {d.machine_id for d in drifts if d.kind is Kind.MEMBER_SILENT}
    return desired.unjoined | silent


def _forget_after_ms(pool: Pool) -> int:
    return int(pool.forget_after_s * 1000)
