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
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.requests import Pause, Request, Verb, ask, read_pause, write_pause
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


class PauseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
    asked = await body(request, PauseBody, empty=PauseBody())
    for field, text in (("reason", asked.reason), ("by", asked.by)):
        if len(text) > MAX_REASON:
            raise Refused(400, f"{field}: longer than {MAX_REASON} characters")
    pause = Pause(reason=asked.reason, by=asked.by, at=rfc3339(now_ms()))
    await write_pause(ctx.redis, ctx.keys, ctx.settings.fleet, pause)
    await _announce(ctx, "reconcile_paused", reason=asked.reason, by=asked.by)
    return answer({"paused": True, "reason": pause.reason, "by": pause.by, "at": pause.at})


async def resume_reconciler(request: web.Request) -> web.Response:
    ctx = context(request)
    was = await read_pause(ctx.redis, ctx.keys, ctx.settings.fleet)
    if was is not None:
        await write_pause(ctx.redis, ctx.keys, ctx.settings.fleet, None)
        await _announce(ctx, "reconcile_resumed", by="api")
    return answer({"paused": False, "was_paused": was is not None})


async def _announce(ctx: Context, type_: str, **data: str) -> None:
    await ctx.events.append(type_, fleet=ctx.settings.fleet, **data)
