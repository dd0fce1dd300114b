"""`POST /api/machines/{id}/join` and those of pools: a box shows its token, and learns the way to Redis and what it is
to run.

The token is all that it needs here, and all that it is good for. Whoever comes with another is told nothing.
"""

from __future__ import annotations

import time

import msgspec
from aiohttp import web

from emp_orch.api.context import Context, answer, context
from emp_orch.api.duplicate_boxes import Boxes, living, refuse_second
from emp_orch.api.handlers import work
from emp_orch.api.joining import limits
from emp_orch.api.joining.answers import PACKAGES_PATH, Credentials, told
from emp_orch.api.joining.membership import Entry, enter, void
from emp_orch.api.machine_token import bearer, is_machines
from emp_orch.api.views.query import body, name_in_path
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import Machine, MachineId, Member, MemberState, PoolName
from emp_orch.plaintext import one_line
from emp_orch.runtimes.keys.join_tokens import JoinTokens, OfMember, OfPool
from emp_orch.store.acl.joining import Asking, Leaving
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import within
from emp_orch.web.errors import Refused

BOXES = web.AppKey("boxes let in", Boxes)
PREEMPTED = "preempted"
_MACHINES, _POOLS = ("machines", "join"), (("pools", "join"), ("pools", "leave"))


def is_members(request: web.Request) -> bool:
    """Whether this request needs no token of the API's: it is a machine's that joins or leaves, or fetches a worker
    package or is at the files of its runs with the token that it got for that.
    """
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical in work.PATHS:
        return is_machines(request)
    parts = request.path.split("/")
    if request.method == "POST":  # the handler looks at its token
        return len(parts) == 5 and parts[:2] == ["", "api"] and (parts[2], parts[4]) in (_MACHINES, *_POOLS)
    if request.method != "GET" or not request.path.startswith(f"{PACKAGES_PATH}/"):
        return False
    return is_machines(request)


async def join(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    tokens, fleet = JoinTokens(ctx.layout), ctx.settings.fleet
    if not tokens.opens(bearer(request), fleet, machine_id, now_s=time.time()):
        limits.guessed(request)
        raise Refused(403, "this token does not let anybody join here")
    limits.asked(request)
    asking, boxes = await body(request, Asking, empty=Asking()), request.app[BOXES]
    async with within():
        generation, machine = await _machine(ctx, machine_id)
        stale_after_s = generation.fleet.reconcile.stale_after_s
        heard = await living(ctx.redis, ctx.keys, machine_id, stale_after_s)
        # From here to where it is let in nobody else has a turn.
        now_s = time.monotonic()
        let_in = boxes.other(machine_id, asking, now_s, stale_after_s)
        refuse_second(machine_id, asking, heard, let_in, stale_after_s)
        boxes.let_in(machine_id, asking, now_s)
        own = Credentials(
            password=tokens.password(fleet, machine_id), token=tokens.issue(fleet, machine_id, expires_s=None)
        )
        said = await told(ctx, generation, machine, own)
    return answer(msgspec.to_builtins(said))


async def join_pool(request: web.Request) -> web.Response:
    """As `join`, of a box that nobody named: as the member that it was, or a new one."""
    ctx, name = context(request), PoolName(name_in_path(request, "name"))
    tokens, fleet = JoinTokens(ctx.layout), ctx.settings.fleet
    opened = _opened(request, name)
    if opened is None:
        limits.guessed(request)
        raise Refused(403, "this token does not let anybody join this pool")
    limits.asked(request, pool=True)
    asking = await body(request, Asking, empty=Asking())
    async with within():
        generation = await ctx.in_force.now()
        pool = generation.fleet.pools.get(name) if generation else None
        if generation is None or pool is None:
            raise Refused(404, f"the fleet has no pool {name} now")
        entry = Entry(generation=generation, pool=pool, opened=opened, asking=asking)
        member = await enter(ctx, request.app[BOXES], entry)
        populated = msgspec.structs.replace(generation, fleet=with_members(generation.fleet, (member,)))
        machine = next(m for m in populated.fleet.machines if m.id == member.id)
        own = Credentials(
            password=tokens.member_password(fleet, member.id, member.born_ms),
            token=tokens.member_token(fleet, name, member.id, born_ms=member.born_ms, life=member.life),
        )
        said = await told(ctx, populated, machine, own)
    return answer(msgspec.to_builtins(said))


async def leave_pool(request: web.Request) -> web.Response:
    """A member's last word: it goes in good order. It may come back."""
    ctx, name = context(request), name_in_path(request, "name")
    opened = _opened(request, name)
    if not isinstance(opened, OfMember):
        if opened is None:
            limits.guessed(request)
        raise Refused(403, "this token is no member's of this pool")
    leaving = await body(request, Leaving, empty=Leaving())
    async with within():
        member = await ctx.members.get(opened.member_id)
        if member is None or not opened.is_of(member):
            raise Refused(403, void(opened, member))
        if member.state is not MemberState.LEFT:
            await _left(ctx, member, leaving)
    return answer({"machine_id": opened.member_id})


async def _left(ctx: Context, member: Member, leaving: Leaving) -> None:
    why = one_line(leaving.why)
    if await ctx.members.change(member, state=MemberState.LEFT, why=why or member.why) is None:
        raise Refused(409, f"{member.id} has just changed; say it again")
    if member.leaving_ms:  # emp let it go itself
        return
    about = {"machine_id": member.id, "pool": member.pool, "why": why, "returned": leaving.returned}
    await journal.note(ctx.redis, ctx.keys, ctx.settings.fleet, PREEMPTED, about)
    await ctx.events.append(PREEMPTED, fleet=ctx.settings.fleet, **about)


def _opened(request: web.Request, pool: str) -> OfPool | OfMember | None:
    """What the token opens, if that is this pool."""
    ctx, given, now_s = context(request), bearer(request), time.time()
    tokens, fleet = JoinTokens(ctx.layout), ctx.settings.fleet
    found = tokens.pool_of(given, fleet, now_s=now_s) or tokens.member_of(given, fleet, now_s=now_s)
    return found if found is not None and found.pool == pool else None


async def _machine(ctx: Context, machine_id: str) -> tuple[Generation, Machine]:
    """The generation in force, and its external machine of that id. Raises Refused (404) when there is none."""
    generation = await ctx.in_force.now()
    machines = generation.fleet.machines if generation else ()
    found = next((m for m in machines if m.id == MachineId(machine_id) and m.traits.joins), None)
    if generation is None or found is None:
        raise Refused(404, f"the fleet has no external machine {machine_id} now")
    return generation, found
