"""The token that a machine shows: what it is let in by, at the few places that are for machines."""

from __future__ import annotations

import time

from aiohttp import web

from emp_orch.api.context import context
from emp_orch.runtimes.keys.join_tokens import JoinTokens


def bearer(request: web.Request) -> str:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def holder(request: web.Request) -> str | None:
    """The machine whose token this request shows; None for any other token, or none."""
    ctx = context(request)
    return JoinTokens(ctx.layout).holder(bearer(request), ctx.settings.fleet, now_s=time.time())
