"""What can be read: health, version, state, drift, plan, generations, journal, events."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from msgspec import Struct

from emp_orch import __version__
from emp_orch.api.context import Context, answer, context
from emp_orch.api.hub import parse_id
from emp_orch.api.query import whole_number
from emp_orch.api.state import drift_view, reconciler_view
from emp_orch.store.connect import TRANSIENT, time_ms
from emp_orch.store.events import Event
from emp_orch.store.generations import list_generations, with_changes
from emp_orch.store.journal import recent
from emp_orch.web.errors import Refused
from emp_orch.web.times import rfc3339

PING_S = 1.0


class GenerationView(Struct, frozen=True, kw_only=True):
    number: int
    applied_at: str
    digest: str
    machines: tuple[str, ...]
    num_gpus: int
    by: str
    why: str
    changes: tuple[str, ...]


class EventView(Struct, frozen=True, kw_only=True):
    id: str
    at: str
    type: str
    data: dict[str, Any]


async def redis_answers(ctx: Context) -> bool:
    try:
        async with asyncio.timeout(PING_S):
            return bool(await ctx.redis.ping())
    except (*TRANSIENT, TimeoutError):
        return False


async def health(request: web.Request) -> web.Response:
    """200 as long as this process answers; the body says whether Redis does."""
    ctx = context(request)
    ok = await redis_answers(ctx)
    data = {
        "status": "ok" if ok else "degraded",
        "version": __version__,
        "fleet": ctx.settings.fleet,
        "redis": ok,
        "subscriptions": subscriptions(ctx),
        "uptime_s": ctx.stats.view().uptime_s,
    }
    return answer(data, redis=ok)


def subscriptions(ctx: Context) -> dict[str, bool]:
    return {"events": ctx.hub.connected, ctx.keys.startup_channel: ctx.startup.subscribed}


async def ready(request: web.Request) -> web.Response:
    ctx = context(request)
    if not await redis_answers(ctx):
        raise Refused(503, "Redis does not answer", headers={"Retry-After": "1"})
    if missing := [name for name, on in subscriptions(ctx).items() if not on]:
        raise Refused(503, f"not subscribed yet to {', '.join(missing)}", headers={"Retry-After": "1"})
    return answer({"ready": True})


async def version(request: web.Request) -> web.Response:
    return answer({"version": __version__, "fleet": context(request).settings.fleet})


async def monitor_state(request: web.Request) -> web.Response:
    return answer(await context(request).reader.read())


async def drift(request: web.Request) -> web.Response:
    ctx = context(request)
    status, now = await asyncio.gather(ctx.reader.status(), time_ms(ctx.redis))
    found = [drift_view(d) for d in status.drift] if status else []
    reconciler = reconciler_view(status, now)
    generation = status.generation if status else 0
    return answer({"drift": found, "generation": generation, "as_of": reconciler.as_of, "reconciler": reconciler})


async def plan(request: web.Request) -> web.Response:
    status = await context(request).reader.status()
    as_of = rfc3339(status.at_ms) if status else None
    return answer({"plan": status.plan if status else (), "paused": status.paused if status else "", "as_of": as_of})


async def generations(request: web.Request) -> web.Response:
    """`changes` are against the one before; there are none where that is no longer kept."""
    ctx = context(request)
    kept = await list_generations(ctx.redis, ctx.keys, ctx.settings.fleet)
    views = [
        GenerationView(
            number=g.number,
            applied_at=rfc3339(g.at_ms),
            digest=g.digest,
            machines=tuple(m.id for m in g.fleet.machines),
            num_gpus=sum(m.num_gpus for m in g.fleet.machines),
            by=g.by,
            why=g.why,
            changes=told,
        )
        for g, told in with_changes(kept)
    ]
    return answer(views)


async def journal(request: web.Request) -> web.Response:
    ctx = context(request)
    limit = whole_number(request, "limit", default=100, low=1, high=1_000)
    return answer([event_view(e) for e in await recent(ctx.redis, ctx.keys, ctx.settings.fleet, limit)])


def event_view(e: Event) -> EventView:
    return EventView(id=e.id, at=rfc3339(e.at_ms), type=e.type, data=e.data)


async def recent_events(request: web.Request) -> web.Response:
    """The last events, oldest first; `after` an id: those that follow it; `type`: only those."""
    ctx = context(request)
    limit = whole_number(request, "limit", default=100, low=1, high=1_000)
    after = request.query.get("after")
    if after is not None and parse_id(after) is None:
        raise Refused(400, "after: expected an event id such as 1700000000000-0")
    wanted = request.query.get("type")
    events = await (ctx.events.since(after, count=limit) if after else ctx.events.recent(limit))
    return answer([event_view(e) for e in events if wanted is None or e.type == wanted])
