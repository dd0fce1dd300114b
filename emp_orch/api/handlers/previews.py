"""`GET /api/jobs/{id}/preview`: the latest picture of a running job. Its event stream has them with `preview=1`."""

from __future__ import annotations

import asyncio
import hashlib

from aiohttp import ETag, web

from emp_orch.api.context import Context, context
from emp_orch.api.views.query import name_in_path
from emp_orch.jobs.document.preview import Preview
from emp_orch.jobs.document.states import HELD
from emp_orch.store.redis.client import within
from emp_orch.web.errors import Refused

# How long an answer waits for a picture, or for another than the asker has. A worker looks once a second who looks.
ANSWER_S = 2.5

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "no-store",
    "Content-Disposition": "inline",
}


async def preview(request: web.Request) -> web.Response:
    """The latest picture of a running job; 204 when it shows none, 304 to who has it."""
    ctx, job_id = context(request), name_in_path(request, "id")
    if not await _is_held(ctx, job_id):
        return web.Response(status=204, headers=_SAFE)
    tags = {tag.value for tag in request.if_none_match or ()}
    found: Preview | None = None
    with ctx.previews.watch(job_id) as feed:
        try:
            async with asyncio.timeout(ANSWER_S):
                number = 0
                while found is None or _tag(found) in tags:
                    number, found = await feed.after(number)
        except TimeoutError:
            pass  # nothing, or nothing new
    if found is None:
        return web.Response(status=204, headers=_SAFE)
    if _tag(found) in tags:
        response = web.Response(status=304, headers=_SAFE)
    else:
        response = web.Response(body=found.data, headers={**_SAFE, "Content-Type": found.content_type})
    response.etag = ETag(_tag(found))
    return response


async def _is_held(ctx: Context, job_id: str) -> bool:
    """Whether a worker has it. Raises Refused for a job that is not there."""
    async with within():
        statuses = await ctx.queue.statuses([job_id])
    if job_id not in statuses:
        raise Refused(404, f"there is no job {job_id!r}")
    return statuses[job_id] in HELD


def _tag(found: Preview) -> str:
    return hashlib.sha256(found.data).hexdigest()[:24]
