"""List, look at, cancel, retry and purge jobs over HTTP. Submitting is in job_submit, watching in job_stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from emp_orch.api.context import answer, context
from emp_orch.api.views.jobs import (
    JobList,
    LaneList,
    explanation_view,
    job_detail,
    job_view,
    lane_view,
)
from emp_orch.api.views.query import body, name_in_path, name_in_query, one_of, whole_number
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.queue.reads import Wanted
from emp_orch.store.queue.submit import MAX_PAGE, NoSuchJob, NotNow
from emp_orch.store.redis.client import time_ms
from emp_orch.web.errors import Refused

MAX_OFFSET = 10_000_000
# A century; what is more counts as a mistake.
MAX_AGE_S = 100 * 366 * 86_400.0
MAX_KEEP = 1_000_000_000


class CancelBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


class PurgeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which ended jobs to forget: those that ended longer ago than `older_than_s`, or all but the newest `keep`.

    `keep` counts for each status.
    """

    statuses: Annotated[list[JobStatus], Meta(min_length=1)]
    older_than_s: Annotated[float, Meta(gt=0, le=MAX_AGE_S)] | None = None
    keep: Annotated[int, Meta(ge=0, le=MAX_KEEP)] | None = None


@contextmanager
def job_errors() -> Iterator[None]:
    """The queue's refusals as statuses."""
    try:
        yield
    except NoSuchJob as e:
        raise Refused(404, e.message, hint=e.hint) from e
    except NotNow as e:
        raise Refused(409, e.message, hint=e.hint) from e


async def list_jobs(request: web.Request) -> web.Response:
    limit = whole_number(request, "limit", default=50, low=1, high=MAX_PAGE)
    offset = whole_number(request, "offset", default=0, low=0, high=MAX_OFFSET)
    status = one_of(request, "status", list(JobStatus))
    wanted = Wanted(
        status=JobStatus(status) if status else None,
        service=name_in_query(request, "service"),
        worker=name_in_query(request, "worker"),
        lane=name_in_query(request, "lane"),
    )
    page = await context(request).queue.find(wanted, limit=limit, offset=offset)
    jobs = [job_view(j) for j in page.jobs]
    return answer(JobList(jobs=jobs, total=page.total, limit=limit, offset=offset, damaged=page.damaged))


async def get_job(request: web.Request) -> web.Response:
    ctx = context(request)
    with job_errors():
        job = await ctx.queue.get(name_in_path(request, "id"))
    return answer(job_detail(job, await ctx.explainer.why(job)))


async def explain_job(request: web.Request) -> web.Response:
    ctx = context(request)
    with job_errors():
        job = await ctx.queue.get(name_in_path(request, "id"))
    return answer(explanation_view(await ctx.explainer.explain(job)))


async def list_lanes(request: web.Request) -> web.Response:
    """The lanes that hold jobs, deepest first."""
    ctx = context(request)
    limit = whole_number(request, "limit", default=100, low=1, high=MAX_PAGE)
    offset = whole_number(request, "offset", default=0, low=0, high=MAX_OFFSET)
    lanes, now = await asyncio.gather(ctx.queue.lanes(), time_ms(ctx.redis))
    page = lanes[offset : offset + limit]
    # Thousands of workers are read only where something waits for one.
    served = await ctx.explainer.serving(page, await ctx.explainer.look()) if page else {}
    views = [lane_view(lane, served[lane.lane], now) for lane in page]
    jobs = sum(lane.depth for lane in lanes)
    return answer(LaneList(lanes=views, total=len(lanes), jobs=jobs, limit=limit, offset=offset))


async def cancel(request: web.Request) -> web.Response:
    job_id = name_in_path(request, "id")
    asked = await body(request, CancelBody, empty=CancelBody())
    with job_errors():
        outcome = await context(request).queue.cancel(job_id, reason=asked.reason)
    return answer({"job_id": job_id, "outcome": outcome}, job_id=job_id)


async def retry(request: web.Request) -> web.Response:
    job_id = name_in_path(request, "id")
    with job_errors():
        await context(request).queue.retry(job_id)
    context(request).ended.drop(job_id)
    return answer({"job_id": job_id, "status": JobStatus.PENDING}, job_id=job_id)


async def purge(request: web.Request) -> web.Response:
    asked = await body(request, PurgeBody)
    if (asked.older_than_s is None) == (asked.keep is None):
        raise Refused(400, "older_than_s, keep: give one of the two; keep 0 forgets all")
    if strangers := [s for s in asked.statuses if s not in ENDED]:
        raise Refused(400, f"statuses: {', '.join(strangers)} jobs have not ended; cancel them first")
    ctx = context(request)
    gone = await ctx.queue.purge(
        dict.fromkeys(asked.statuses), older_than_s=asked.older_than_s or 0, keep=asked.keep or 0
    )
    ctx.ended.drop()
    return answer({"purged": gone})
