"""The pools as one look sees them. `wanted` is for whoever starts their boxes: an autoscaler asks for it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from emp_orch.api.context import answer, context
from emp_orch.api.views.pool_detail import Heard, pool_detail
from emp_orch.api.views.pools import pool_views
from emp_orch.api.views.query import name_in_path
from emp_orch.errors import EmpError
from emp_orch.store.fleet.status import FleetStatus
from emp_orch.store.redis.client import time_ms
from emp_orch.store.reports.reports import read_some
from emp_orch.web.errors import Refused
from emp_orch.web.times import rfc3339


async def list_pools(request: web.Request) -> web.Response:
    """`as_of`, beside them: when a reconciler last looked; null when none ever did."""
    generation, status = await context(request).reader.pools()
    return answer(list(pool_views(generation, status).values()), as_of=_as_of(status))


async def get_pool(request: web.Request) -> web.Response:
    ctx, name = context(request), name_in_path(request, "name")
    (generation, status), now_ms = await asyncio.gather(ctx.reader.pools(), time_ms(ctx.redis))
    views = pool_views(generation, status)
    if name not in views:
        raise Refused(404, f"there is no pool {name}", hint=f"there are: {', '.join(views) or 'none'}")
    members = [m for m in (generation.fleet.members if generation else ()) if m.pool == name]
    reports = await read_some(ctx.redis, ctx.keys, now_ms, [m.id for m in members], ())
    stale_after_ms = int(generation.fleet.reconcile.stale_after_s * 1000) if generation else 0
    heard = Heard(machines=reports.machines, now_ms=now_ms, stale_after_ms=stale_after_ms)
    return answer(pool_detail(views[name], members, heard), as_of=_as_of(status))


def _as_of(status: FleetStatus | EmpError | None) -> str | None:
    return rfc3339(status.at_ms) if isinstance(status, FleetStatus) else None
