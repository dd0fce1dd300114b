"""What can be read: health, version, state, drift, plan, generations, journal, events."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch import __version__
from emp_orch.api.context import Context, answer, context
from emp_orch.api.feed.frames import parse_id
from emp_orch.api.views.drift_story import story_view
from emp_orch.api.views.query import name_in_path, name_in_query, only_known, whole_number
from emp_orch.api.views.state import drift_view, reconciler_view
from emp_orch.store.drift_stories import DriftStories
from emp_orch.store.fleet import journal_reads
from emp_orch.store.fleet.events import Event
from emp_orch.store.fleet.generations import list_generations, with_changes
from emp_orch.store.fleet.journal_reads import wanted
from emp_orch.store.redis.client import TRANSIENT, time_ms
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
        "status": "ok" if ok and not ctx.reader.refuses else "degraded",
        "version": __version__,
        "fleet": ctx.settings.fleet,
        "redis": ok,
        "refuses": ctx.reader.refuses,
        "subscriptions": subscriptions(ctx),
        "uptime_s": ctx.stats.view().uptime_s,
    }
    return answer(data, redis=ok)


def subscriptions(ctx: Context) -> dict[str, bool]:
    return {"events": ctx.hub.connected, ctx.keys.startup_channel: ctx.startup.subscribed}


async def ready(request: web.Request) -> web.Response:
    ctx = context(request)
    if not await redis_answers(ctx):
        raise Refused(503, "Redis does not answer")
    if missing := [name for name, on in subscriptions(ctx).items() if not on]:
        raise Refused(503, f"not subscribed yet to {', '.join(missing)}")
    return answer({"ready": True})


async def version(request: web.Request) -> web.Response:
    return answer({"version": __version__, "fleet": context(request).settings.fleet})


async def monitor_state(request: web.Request) -> web.Response:
    """`data` is revision `revision` of what live streams tell."""
    live = context(request).live
    await live.fresh(whole=True)
    return answer(msgspec.Raw(live.state()), revision=live.revision)


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
    """`changes` are against the one before; there are none where that is no longer kept. `damaged`, beside them, names
    those that cannot be read."""
    ctx = context(request)
    damaged: list[str] = []
    kept = await list_generations(ctx.redis, ctx.keys, ctx.settings.fleet, damaged=damaged)
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
    return answer(views, damaged=damaged)


JOURNAL = ("limit", "since", "machine", "pool", "type", "kind", "before", "after")


async def journal(request: web.Request) -> web.Response:
    """The last entries that fit, oldest first; `more` beside them is the next page's `before`."""
    ctx, query = context(request), request.query
    only_known(request, JOURNAL)
    limit = whole_number(request, "limit", default=100, low=1, high=1_000)
    ids = {name: query[name] for name in ("before", "after") if name in query}
    if len(ids) == 2 or any(parse_id(text) is None for text in ids.values()):
        raise Refused(400, "before, after: expected one of them, an entry's id such as 1700000000000-0")
    fits = wanted(
        await time_ms(ctx.redis),
        since=query.get("since", ""),
        machine_id=name_in_query(request, "machine") or "",
        pool=name_in_query(request, "pool") or "",
        types=_listed(query.getall("type", [])),
        kinds=_listed(query.getall("kind", [])),
    )
    fleet = ctx.settings.fleet
    if "after" in ids:
        entries = await journal_reads.after(ctx.redis, ctx.keys, fleet, fits, limit, after=ids["after"])
        return answer([event_view(e) for e in entries], more=None)
    page = await journal_reads.page(ctx.redis, ctx.keys, fleet, fits, limit, before=ids.get("before", ""))
    return answer([event_view(e) for e in page.entries], more=page.more)


def _listed(texts: list[str]) -> list[str]:
    """`type=a&type=b` and `type=a,b` alike."""
    return [name for text in texts for name in text.split(",") if name]


async def drift_story(request: web.Request) -> web.Response:
    """One drift: what stands, what was decided and tried, former times; also of one that has closed."""
    ctx = context(request)
    parts = [name_in_path(request, field) for field in ("kind", "machine_id", "subject")]
    stories = DriftStories(ctx.redis, ctx.keys, ctx.settings.fleet)
    found = await stories.of("/".join(parts), await ctx.reader.status())
    if found is None:
        raise Refused(404, f"no drift {'/'.join(parts)} stands, and the journal has none")
    return answer(story_view(found))


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
