"""The token that a machine shows: what it is let in by, at the few places that are for machines."""

from __future__ import annotations

import time

from aiohttp import web

from emp_orch.api.context import context
from emp_orch.runtimes.keys.join_tokens import JoinTokens, OfMember
from emp_orch.store.redis.client import within


def bearer(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def is_machines(request: web.Request) -> bool:
    """Whether it is a token that this fleet gave to a machine. Of a member: whether it is one still, `holder` tells."""
    return isinstance(_shown(request), str | OfMember)


async def holder(request: web.Request) -> str | None:
    """The machine or member whose token this request shows; None for any other token, or none."""
    shown = _shown(request)
    if not isinstance(shown, OfMember):
        return shown
    async with within():
        return shown.member_id if await context(request).known_members.is_one(shown) else None


async def is_former(request: web.Request) -> bool:
    """Whether it is the token of a member that was forgotten, or is another box now."""
    return isinstance(_shown(request), OfMember) and await holder(request) is None


def _shown(request: web.Request) -> str | OfMember | None:
    ctx, given, now_s = context(request), bearer(request), time.time()
    return JoinTokens(ctx.layout).stands_for(given, ctx.settings.fleet, now_s=now_s)
