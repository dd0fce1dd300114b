"""What people ask of machines and of the reconciler. The API only asks; the leader acts."""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import Context, answer, context
from emp_orch.api.hub import Subscription
from emp_orch.api.query import body, name_in_path, whole_number
from emp_orch.api.views import MachineView, State
from emp_orch.fleet.model import MachineId, ProgramName
from emp_orch.fleet.overrides import Override, OverrideKind
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.overrides import lift_overrides, put_override
from emp_orch.store.requests import Request, Verb, ask
from emp_orch.web.errors import Refused
from emp_orch.web.times import now_ms, rfc3339

REQUEST_DONE = "request_done"
WAIT_S = 10
WAIT_MAX_S = 60
MAX_REASON = 500


class RequestDone(Struct, frozen=True, kw_only=True):
    """The event by which the reconciler answers."""

    request_id: str
    ok: bool
    error: str = ""


class ScopeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole fleet, one machine, or one program of it."""

    machine_id: str | None = None
    program: str | None = None
    reason: str = ""
    by: str = "api"


class DrainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""
    by: str = "api"


async def restart_machine(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    _known_machine(await ctx.reader.read(), machine_id)
    return await _ask(request, Request(verb=Verb.RESTART_MACHINE, machine_id=machine_id))


async def restart_program(request: web.Request) -> web.Response:
    ctx, machine_id, program = context(request), name_in_path(request, "id"), name_in_path(request, "program")
    state = await ctx.reader.read()
    machine = _known_machine(state, machine_id)
    programs = set(machine.programs) if machine else set()
    programs.update(*(m.programs for m in state.fleet.machines if m.id == machine_id))
    if program not in programs:
        raise Refused(404, f"machine {machine_id} has no program {program}; it has: {', '.join(sorted(programs))}")
    return await _ask(request, Request(verb=Verb.RESTART_PROGRAM, machine_id=machine_id, program=program))


async def forget_machine(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    machine = _known_machine(await ctx.reader.read(), machine_id)
    if machine is None:
        raise Refused(404, f"machine {machine_id} has not reported: there is nothing to forget")
    if not machine.stale and machine.status != "offline":
        raise Refused(409, f"machine {machine_id} is {machine.status}: only an offline machine can be forgotten")
    return await _ask(request, Request(verb=Verb.FORGET_MACHINE, machine_id=machine_id))


def _known_machine(state: State, machine_id: str) -> MachineView | None:
    """Its report, or None when it is only desired. Raises Refused (404) when it is neither."""
    found = next((m for m in state.machines if m.machine_id == machine_id), None)
    if found is None and machine_id not in {m.id for m in state.fleet.machines}:
        raise Refused(404, f"there is no machine {machine_id}")
    return found


async def _ask(request: web.Request, what: Request) -> web.Response:
    """200 when it was done, 409 when it was refused, 202 when nobody answered within `wait` seconds."""
    ctx = context(request)
    wait_s = whole_number(request, "wait", default=WAIT_S, low=0, high=WAIT_MAX_S)
    with ctx.hub.subscribe(live=False) as subscription:
        request_id = await ask(ctx.redis, ctx.keys, ctx.settings.fleet, what)
        try:
            async with asyncio.timeout(wait_s):
                done = await _outcome(subscription, request_id)
        except TimeoutError:
            done = None
    if done is None:
        return answer({"request_id": request_id, "done": False}, status=202, request_id=request_id)
    if not done.ok:
        raise Refused(409, done.error or f"the reconciler refused {what.verb}")
    return answer({"request_id": request_id, "done": True}, request_id=request_id)


async def _outcome(subscription: Subscription, request_id: str) -> RequestDone | None:
    """What the reconciler says of `request_id`; None when the stream was interrupted."""
    while not (subscription.closed or subscription.lost):
        for frame in await subscription.take(WAIT_MAX_S):
            if frame.event != REQUEST_DONE:
                continue
            try:
                done = msgspec.json.decode(frame.data, type=RequestDone)
            except DAMAGED:
                continue
            if done.request_id == request_id:
                return done
    return None


async def pause_reconciler(request: web.Request) -> web.Response:
    ctx = context(request)
    asked = await body(request, ScopeBody, empty=ScopeBody())
    pause = await _override(request, OverrideKind.PAUSE, asked)
    await _announce(ctx, "reconcile_paused", scope=pause.scope, reason=pause.reason, by=pause.by)
    told = {"scope": pause.scope, "reason": pause.reason, "by": pause.by, "at": pause.at}
    return answer({"paused": True, **told})


async def drain_machine(request: web.Request) -> web.Response:
    """The machine's workers finish their jobs and end; `resume` brings them back."""
    ctx, machine_id = context(request), name_in_path(request, "id")
    asked = await body(request, DrainBody, empty=DrainBody())
    scope = ScopeBody(machine_id=machine_id, reason=asked.reason, by=asked.by)
    drain = await _override(request, OverrideKind.DRAIN, scope)
    await _announce(ctx, "machine_drained", machine_id=machine_id, reason=drain.reason, by=drain.by)
    return answer({"draining": machine_id, "reason": drain.reason, "by": drain.by, "at": drain.at})


async def resume_reconciler(request: web.Request) -> web.Response:
    """Lift what stands on the scope; for the whole fleet an open breaker too."""
    ctx = context(request)
    asked = await body(request, ScopeBody, empty=ScopeBody())
    scope = _scope(asked)
    lifted = await lift_overrides(ctx.redis, ctx.keys, ctx.settings.fleet, scope=scope)
    status = await ctx.reader.status() if scope == "fleet" else None
    closes = status is not None and status.breaker is not None
    if closes:
        await ask(ctx.redis, ctx.keys, ctx.settings.fleet, Request(verb=Verb.CLOSE_BREAKER, by=asked.by))
    if lifted or closes:
        await _announce(ctx, "reconcile_resumed", scope=scope, by=asked.by)
    return answer({"paused": False, "was_paused": bool(lifted), "lifted": lifted, "closes_breaker": closes})


def _scope(asked: ScopeBody) -> str:
    for field, text in (("reason", asked.reason), ("by", asked.by)):
        if len(text) > MAX_REASON:
            raise Refused(400, f"{field}: longer than {MAX_REASON} characters")
    if asked.program is not None and asked.machine_id is None:
        raise Refused(400, "program: name its machine_id too")
    return "/".join(filter(None, (asked.machine_id, asked.program))) or "fleet"


async def _override(request: web.Request, kind: OverrideKind, asked: ScopeBody) -> Override:
    """Let a pause or drain stand. Raises Refused (404) for a machine or program that is not of this fleet."""
    ctx = context(request)
    _scope(asked)
    if asked.machine_id is not None:
        state = await ctx.reader.read()
        machine = next((m for m in state.fleet.machines if m.id == asked.machine_id), None)
        if machine is None:
            raise Refused(404, f"there is no machine {asked.machine_id} in generation {state.fleet.generation}")
        if asked.program is not None and asked.program not in machine.programs:
            raise Refused(404, f"machine {machine.id} has no program {asked.program}")
    override = Override(
        kind=kind,
        machine_id=MachineId(asked.machine_id) if asked.machine_id else None,
        program=ProgramName(asked.program) if asked.program else None,
        reason=asked.reason,
        by=asked.by,
        at=rfc3339(now_ms()),
    )
    await put_override(ctx.redis, ctx.keys, ctx.settings.fleet, override)
    return override


async def _announce(ctx: Context, type_: str, **data: str) -> None:
    await ctx.events.append(type_, fleet=ctx.settings.fleet, **data)
