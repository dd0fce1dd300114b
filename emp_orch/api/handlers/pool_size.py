"""A person's word on the size of a pool."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import answer, context
from emp_orch.api.views.query import body, name_in_path
from emp_orch.fleet.names import UnknownName
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet.orders import Orders
from emp_orch.web.errors import Refused


class ScaleBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`size` None: the pool follows its queue."""

    size: int | None
    reason: str = ""
    by: str = "api"


async def scale_pool(request: web.Request) -> web.Response:
    """`stood`: whether an order stands now, or stood before `auto`. More than the pool may have is a 400."""
    ctx, name = context(request), name_in_path(request, "name")
    asked = await body(request, ScaleBody)
    orders = Orders(ctx.redis, ctx.keys, ctx.settings.fleet, SigningKey(ctx.layout, ctx.settings.fleet).control())
    try:
        order = await orders.scale(name, asked.size, reason=asked.reason, by=asked.by)
    except UnknownName as e:
        raise Refused(404, e.message, hint=e.hint) from e
    return answer({"pool": name, "size": asked.size, "reason": asked.reason, "stood": order is not None})
