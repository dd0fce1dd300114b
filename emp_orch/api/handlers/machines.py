"""What people ask of machines and of the reconciler. The API only asks; the leader acts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import answer, context
from emp_orch.api.feed.hub import Subscription
from emp_orch.api.views.fleet import MachineView, State
from emp_orch.api.views.query import body, name_in_path, whole_number
from emp_orch.fleet.names import Name, Names, UnknownName
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet.orders import Orders, Scope
from emp_orch.store.fleet.requests import Request, Verb, ask
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.web.errors import Refused

REQUEST_DONE = "request_done"
WAIT_S = 10
WAIT_MAX_S = 60


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
    name = _named(await context(request).reader.read(), name_in_path(request, "id"))
    if name.program is not None:
        raise Refused(
            404, f"{name.text} is a program", hint=f"POST /api/machines/{name.machine}/programs/{name.program}/restart"
        )
    return await _ask(request, Request(verb=Verb.RESTART_MACHINE, machine_id=name.machine))


async def restart_program(request: web.Request) -> web.Response:
    state = await context(request).reader.read()
    name = _named(state, name_in_path(request, "id"), name_in_path(request, "program"))
    if name.program is None or name.own:
        raise Refused(
            404, f"{name.text} is no program that starts by itself", hint=f"POST /api/machines/{name.machine}/restart"
        )
    return await _ask(request, Request(verb=Verb.RESTART_PROGRAM, machine_id=name.machine, program=name.program))


async def forget_machine(request: web.Request) -> web.Response:
    ctx, machine_id = context(request), name_in_path(request, "id")
    machine = _reported_machine(await ctx.reader.read(), machine_id)
    if machine is None:
        raise Refused(404, f"machine {machine_id} has not reported: there is nothing to forget")
    if not machine.stale and machine.status != "offline":
        raise Refused(409, f"machine {machine_id} is {machine.status}: only an offline machine can be forgotten")
    return await _ask(request, Request(verb=Verb.FORGET_MACHINE, machine_id=machine_id))


def _named(state: State, *words: str) -> Name:
    """The machine or program that `words` mean, of those that report or are desired. Raises Refused (404)."""
    programs: dict[str, set[str]] = {str(m.machine_id): set(m.programs) for m in state.machines}
    for wanted in state.fleet.machines:
        programs.setdefault(wanted.id, set()).update(wanted.programs)
    with _unknown_is_404():
        return Names(programs, lambda machine: sorted(programs[machine])).find(words)


def _reported_machine(state: State, machine_id: str) -> MachineView | None:
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
        seal = SigningKey(ctx.layout, ctx.settings.fleet).control()
        request_id = await ask(ctx.redis, ctx.keys, ctx.settings.fleet, what, seal)
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
    asked = await body(request, ScopeBody, empty=ScopeBody())
    with _unknown_is_404():
        pause = await _orders(request).pause(_scope(asked), reason=asked.reason, by=asked.by)
    told = {"scope": pause.scope, "reason": pause.reason, "by": pause.by, "at": pause.at}
    return answer({"paused": True, **told})


async def drain_machine(request: web.Request) -> web.Response:
    """The machine's workers finish their jobs and end; `resume` brings them back."""
    machine_id = name_in_path(request, "id")
    asked = await body(request, DrainBody, empty=DrainBody())
    with _unknown_is_404():
        drain = await _orders(request).drain(machine_id, reason=asked.reason, by=asked.by)
    return answer({"draining": machine_id, "reason": drain.reason, "by": drain.by, "at": drain.at})


async def resume_reconciler(request: web.Request) -> web.Response:
    """Lift what stands on the scope; for the whole fleet an open breaker too."""
    asked = await body(request, ScopeBody, empty=ScopeBody())
    with _unknown_is_404():
        done = await _orders(request).resume(_scope(asked), by=asked.by)
    left = [o.key for o in done.left]
    told = {"lifted": done.lifted, "closes_breaker": done.closes_breaker, "left": left}
    return answer({"paused": False, "was_paused": bool(done.lifted), **told})


def _orders(request: web.Request) -> Orders:
    ctx = context(request)
    return Orders(ctx.redis, ctx.keys, ctx.settings.fleet, SigningKey(ctx.layout, ctx.settings.fleet).control())


def _scope(asked: ScopeBody) -> Scope:
    return Scope(machine_id=asked.machine_id, program=asked.program)


@contextmanager
def _unknown_is_404() -> Iterator[None]:
    """Who names what is not there gets 404."""
    try:
        yield
    except UnknownName as e:
        raise Refused(404, e.message, hint=e.hint) from e
