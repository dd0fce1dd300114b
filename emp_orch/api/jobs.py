"""Submit, list, watch, cancel and retry jobs over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch.api.context import Context, answer, context
from emp_orch.api.hub import Frame
from emp_orch.api.job_views import JobList, job_detail, job_view
from emp_orch.api.query import body, name_in_path, whole_number
from emp_orch.api.sse import COMMENT_S, SseStream
from emp_orch.jobs.states import ENDED, JobStatus
from emp_orch.jobs.submission import DEFAULT_RETRIES, parse_submission
from emp_orch.store.queue import MAX_PAGE, NoSuchJob, NotNow
from emp_orch.web.errors import Refused

MAX_OFFSET = 10_000_000


class JobBody(Struct, frozen=True, kw_only=True):
    """What a job is submitted as; jobs/submission.py checks it and names every problem at once."""

    service: str
    payload: dict[str, Any] = {}
    requirements: dict[str, Any] | None = None
    priority: int = 0
    max_retries: int = DEFAULT_RETRIES
    id: str | None = None


class CancelBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str = ""


class JobEvent(Struct, frozen=True, kw_only=True):
    """What every job event of the stream carries."""

    job_id: str
    status: str = ""


@contextmanager
def job_errors() -> Iterator[None]:
    """The queue's refusals as statuses."""
    try:
        yield
    except NoSuchJob as e:
        raise Refused(404, e.message, hint=e.hint) from e
    except NotNow as e:
        raise Refused(409, e.message, hint=e.hint) from e


async def submit(request: web.Request) -> web.Response:
    """201; 200 when a job of that id was there already."""
    asked = parse_submission(await body(request, dict[str, Any]))
    done = await context(request).queue.submit(asked)
    return answer(done, status=201 if done.created else 200, job_id=done.job_id)


async def list_jobs(request: web.Request) -> web.Response:
    limit = whole_number(request, "limit", default=50, low=1, high=MAX_PAGE)
    offset = whole_number(request, "offset", default=0, low=0, high=MAX_OFFSET)
    text = request.query.get("status")
    if text is not None and text not in set(JobStatus):
        raise Refused(400, f"status: expected one of {', '.join(JobStatus)}")
    page = await context(request).queue.list(status=JobStatus(text) if text else None, limit=limit, offset=offset)
    return answer(JobList(jobs=[job_view(j) for j in page.jobs], total=page.total, limit=limit, offset=offset))


async def get_job(request: web.Request) -> web.Response:
    ctx = context(request)
    with job_errors():
        job = await ctx.queue.get(name_in_path(request, "id"))
    return answer(job_detail(job, await ctx.queue.why(job)))


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
    return answer({"job_id": job_id, "status": JobStatus.PENDING}, job_id=job_id)


async def progress(request: web.Request) -> web.StreamResponse:
    """SSE: `job` (as it is now), each of its events, and at its end `job` again; then the stream ends."""
    ctx, job_id = context(request), name_in_path(request, "id")
    with job_errors():
        await ctx.queue.get(job_id)
    stream = await SseStream.open(request)
    with stream.counted(ctx.stats):
        await follow_job(ctx, job_id, lambda frame: stream.send([frame]), stream.comment)
    return stream.response


async def follow_job(
    ctx: Context, job_id: str, send: Callable[[Frame], Awaitable[None]], idle: Callable[[], Awaitable[None]]
) -> None:
    """Tell all that happens to one job until it has ended. Events that were lost are made up for by `job`."""
    with ctx.hub.subscribe(live=False) as subscription:
        subscription.drop()
        spoke = monotonic()
        while not subscription.closed:
            ended = False
            if subscription.lost:
                subscription.restart()
                ended = await _tell_job(ctx, job_id, send)
            for frame in await subscription.take(0 if ended else COMMENT_S):
                event = job_event(frame)
                if event is not None and event.job_id == job_id:
                    await send(frame)
                    spoke = monotonic()
                    if event.status in ENDED:
                        ended = await _tell_job(ctx, job_id, send)
            if ended:
                return
            if monotonic() - spoke >= COMMENT_S:
                await idle()
                spoke = monotonic()


async def _tell_job(ctx: Context, job_id: str, send: Callable[[Frame], Awaitable[None]]) -> bool:
    """Send the job as it is now; True when it has ended, or is no longer known."""
    try:
        job = await ctx.queue.get(job_id)
    except NoSuchJob as e:
        await send(Frame("error", {"error": e.message}))
        return True
    await send(Frame("job", job_detail(job, await ctx.queue.why(job))))
    return job.status in ENDED


def job_event(frame: Frame) -> JobEvent | None:
    """The job that an event of the stream is about; None for any other event."""
    if not frame.event.startswith("job_"):
        return None
    try:
        return msgspec.json.decode(frame.data, type=JobEvent)
    except msgspec.ValidationError:
        return None
