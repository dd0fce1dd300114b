"""Which member of a pool a box is: one that comes back, or a new one; and that a member's token is still a member's."""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec import Struct

from emp_orch.api.context import Context
from emp_orch.api.duplicate_boxes import Boxes, living, refuse_second
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool
from emp_orch.fleet.model.member_ids import id_of_name, ids_of_box
from emp_orch.runtimes.keys.join_tokens import OfMember, OfPool
from emp_orch.store.acl.joining import Asking
from emp_orch.store.acl.users import withdraw
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.members import Full
from emp_orch.store.redis.client import time_ms
from emp_orch.web.errors import Refused

# Somebody else may write the same member meanwhile.
TRIES = 5
BUSY_S = 1
JOINED = "member_joined"


class Entry(Struct, frozen=True, kw_only=True):
    """A box at the door: the pool, what its token opens, what it says of itself."""

    generation: Generation
    pool: Pool
    opened: OfPool | OfMember
    asking: Asking


async def enter(ctx: Context, boxes: Boxes, entry: Entry) -> Member:
    """Let the box in as a member. Raises Refused: its member is forgotten (403), another box is it, the pool is full
    (409), an engine's next box comes too soon, or others write the same one all the time (429).
    """
    stale_after_s, asking = entry.generation.fleet.reconcile.stale_after_s, entry.asking
    for _ in range(TRIES):
        member_id, member = await _whose(ctx, entry)
        if member is None and _is_nameless(entry):
            # Another folder may have the same short id at this moment: who is first, Redis tells; the other has the
            # next one.
            entered = await _admit(ctx, entry, member_id)
            if entered is None:
                continue
            boxes.let_in(member_id, asking, time.monotonic())
            return entered
        # One that left in good order said its last word: its next box, started elsewhere, need not wait.
        there = member is not None and member.state is not MemberState.LEFT
        heard = await living(ctx.redis, ctx.keys, member_id, stale_after_s) if there else None
        # From here to where it is let in nobody else has a turn.
        now_s = time.monotonic()
        let_in = boxes.other(member_id, asking, now_s, stale_after_s) if there or member is None else ""
        by_engine = isinstance(entry.opened, OfPool) and bool(entry.opened.member_id)
        refuse_second(member_id, asking, heard, let_in, stale_after_s, pool=entry.pool.name, by_engine=by_engine)
        boxes.let_in(member_id, asking, now_s)
        try:
            entered = await (_renew(ctx, member, asking) if member else _admit(ctx, entry, member_id))
        except BaseException:
            boxes.put_out(member_id, asking)
            raise
        if entered is not None:
            return entered
    raise Refused(429, f"{member_id} changes all the time", headers={"Retry-After": str(BUSY_S)})


async def _whose(ctx: Context, entry: Entry) -> tuple[MachineId, Member | None]:
    """The id that the box has or is to have, and who has it now."""
    opened, pool, asking = entry.opened, entry.pool, entry.asking
    if not asking.box:  # else whoever has the pool's token were any member, beside the box that is it
        raise Refused(400, "box: needed of a box of a pool", hint="its emp is too old to join a pool")
    if isinstance(opened, OfMember):
        member = await ctx.members.get(opened.member_id)
        if member is None or not opened.is_of(member):
            raise Refused(403, void(opened, member))
        return member.id, member
    for member_id in _ids(pool, opened, asking):
        _refuse_named(entry.generation, member_id)
        member = await ctx.members.get(member_id)
        if member is None and opened.member_id:  # its box was started for one that is no member any more
            raise Refused(403, f"{member_id} was forgotten: its token lets nobody join any more")
        if member is not None and member.pool != pool.name:
            raise Refused(409, f"{member_id} is a member of pool {member.pool}; go by another name (--as)")
        # Of a box without a name only the folder tells whether it is that one.
        if member is None or not _is_nameless(entry) or member.box == asking.box:
            return member_id, member
    raise Refused(409, f"{pool.name} has no id left for this box; give it a name (--as)")


def void(opened: OfMember, member: Member | None) -> str:
    """Why its token opens nothing any more; `member` is who has that id now."""
    is_other = member is not None and member.born_ms == opened.born_ms
    what = "is another box now: this" if is_other else "was forgotten: its"
    return f"{opened.member_id} {what} token lets nobody join any more"


def _is_nameless(entry: Entry) -> bool:
    """Whether nothing but its folder tells which member the box is."""
    return isinstance(entry.opened, OfPool) and not entry.opened.member_id and not entry.asking.name


def _ids(pool: Pool, opened: OfPool, asking: Asking) -> Iterator[MachineId]:
    if opened.member_id:
        return iter((MachineId(opened.member_id),))
    if asking.name:
        return iter((id_of_name(pool.name, asking.name),))
    return ids_of_box(pool.name, asking.box)


def _refuse_named(generation: Generation, member_id: str) -> None:
    if any(m.id == member_id and not m.pool for m in generation.fleet.machines):
        raise Refused(409, f"{member_id} is a machine of emp.yaml; go by another name (--as)")


async def _renew(ctx: Context, member: Member, asking: Asking) -> Member | None:
    """`member`, who is in again; None where somebody else changed it meanwhile. Another box than before is another life
    of it: what the one before was given is void.
    """
    is_other = member.box not in ("", asking.box)
    changed = {
        "state": MemberState.IN,
        "joined_ms": member.joined_ms or await time_ms(ctx.redis),
        "name": asking.name if asking.name not in ("", member.id) else member.name,
        "box": asking.box,
        "life": member.life + is_other,
        "why": "" if member.state is MemberState.LEFT else member.why,
    }
    if all(getattr(member, field) == value for field, value in changed.items()):
        return member
    is_back = member.state is not MemberState.IN
    entered = await ctx.members.change(member, ring=not is_back, **changed)
    if entered is not None and is_other:  # one that an older emp gave it
        await withdraw(ctx.redis, ctx.keys, ctx.settings.fleet, member.id)
    if entered is not None and is_back:
        await _tell(ctx, entered, "came back" if member.joined_ms else "asked for")
    return entered


async def _admit(ctx: Context, entry: Entry, member_id: MachineId) -> Member | None:
    """A new member; None where its id was taken meanwhile."""
    pool, asking, opened = entry.pool, entry.asking, entry.opened
    now_ms = await time_ms(ctx.redis)
    made = Member(
        id=member_id,
        pool=pool.name,
        state=MemberState.IN,
        born_ms=now_ms,
        joined_ms=now_ms,
        name="" if asking.name == member_id else asking.name,
        box=asking.box,
    )
    most = pool.max_size
    if isinstance(opened, OfPool) and opened.most:
        most = min(most, opened.most)
    if most == 0:
        raise _full(pool, most)
    for _ in range(TRIES):
        try:
            if not await ctx.members.add(made, most=most, ring=False):
                return None
            await _tell(ctx, made, "new")
            return made
        except Full:
            if not await _place_of_one_that_left(ctx, pool):
                break
    raise _full(pool, most)


async def _tell(ctx: Context, member: Member, how: str) -> None:
    """Into the journal first: who hears of it reads there. It is all that rings for a join."""
    about = {"machine_id": member.id, "pool": member.pool, "how": how, "name": member.name}
    await journal.note(ctx.redis, ctx.keys, ctx.settings.fleet, JOINED, about)
    await ctx.events.append(JOINED, fleet=ctx.settings.fleet, **about)


async def _place_of_one_that_left(ctx: Context, pool: Pool) -> bool:
    """Forget the member that left in good order longest ago, with its login: who comes now has its place."""
    seen = await ctx.members.read()
    left = [m for m in seen.members if m.pool == pool.name and m.state is MemberState.LEFT]
    for member in sorted(left, key=lambda m: m.joined_ms):
        if await ctx.members.remove(member):
            await withdraw(ctx.redis, ctx.keys, ctx.settings.fleet, member.id)
            return True
    return False


def _full(pool: Pool, most: int) -> Refused:
    whose = "as emp.yaml has it" if most == pool.max_size else "as this token has it (--max)"
    return Refused(409, f"pool {pool.name} is full: {most} members at most, {whose}")
