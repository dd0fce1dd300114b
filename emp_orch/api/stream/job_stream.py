"""`GET /api/jobs/{id}/progress`: all that happens to one job, until it has ended.

First `job` as it is now; then what its runs said so far (`job_progress`, the last 200); then its events as they
come, and `lane_unworkable` or `lane_workable` of its lane; whenever it has ended or its lane was judged, and soon after
it was submitted if it still waits, `job` again.
With `preview=1` also `preview`, a picture of the run as a data URL, at most twice a second. The last is always a `job`
that has ended, or an `error`. With Last-Event-ID only what was said later is told again; a
client that has been told the end is answered 204, on which an EventSource stops.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import msgspec
from aiohttp import web

from emp_orch.api.context import Context, context
from emp_orch.api.feed.frames import Batch, Frame, parse_id
from emp_orch.api.feed.hub import Subscription
from emp_orch.api.handlers.jobs import job_errors
from emp_orch.api.stream.sse import COMMENT_S, RETRY_MS, SseStream
from emp_orch.api.views.jobs import job_detail
from emp_orch.api.views.query import name_in_path, one_of
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.queue.codec import JobDamaged
from emp_orch.store.queue.submit import NoSuchJob
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.web.times import now_ms

PROGRESS = "job_progress"
# More events than happen in one millisecond.
END_SEQ = 9_999_999_999
# Why a job waits is worked out from all workers' reports. Most are claimed before that: what is younger than this is
# explained when it still waits.
JUST_S = 0.25
JUST_SUBMITTED = "it was just submitted"


Send = Callable[[Sequence[Frame]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    """How one client is told. `end` sends the last; `idle` keeps a silent connection alive."""

    send: Send
    end: Send
    idle: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Said:
    """What the runs of a job said so far, the last of it at `until_ms`."""

    frames: list[Frame]
    until_ms: int


async def progress(request: web.Request) -> web.StreamResponse:
    ctx, job_id = context(request), name_in_path(request, "id")
    last_id = request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or ""
    heard = parse_id(last_id)
    wants_previews = one_of(request, "preview", ("0", "1")) == "1"
    with ctx.hub.subscribe(live=False) as subscription:  # before the job is read: nothing falls between
        with job_errors():
            after_ms = heard[0] if heard else 0
            job, rows = await ctx.queue.get_and_said(job_id, f"{after_ms + 1}-0" if after_ms else "-")
        said = _said(job_id, rows, after_ms)
        ctx.ended.keep(job)
        if heard is not None and heard == parse_id(_end_id(job) or ""):
            return web.Response(status=204)
        return await _stream(request, job, said, subscription, wants_previews=wants_previews)


async def _stream(
    request: web.Request, job: Job, said: Said, subscription: Subscription, *, wants_previews: bool
) -> web.StreamResponse:
    ctx = context(request)
    stream = await SseStream.open(request)
    writing = asyncio.Lock()  # a frame is written in pieces

    async def send(frames: Sequence[Frame]) -> None:
        async with writing:
            await stream.send(Batch(frames))

    async def end(frames: Sequence[Frame]) -> None:
        async with writing:
            await stream.end(Batch(frames))

    async def idle() -> None:
        async with writing:
            await stream.comment()

    with stream.counted(ctx.stats):
        stream.hold(f"retry: {RETRY_MS}\n\n".encode())
        listener = Listener(send, end, idle)
        shown = [asyncio.create_task(_show(ctx, job.id, listener), name="previews")] if wants_previews else []
        try:
            await follow_job(ctx, job, said, listener, subscription)
        finally:
            for task in shown:
                task.cancel()
            await asyncio.gather(*shown, return_exceptions=True)  # a client that has gone is told by follow_job
    return stream.response


async def _show(ctx: Context, job_id: str, listener: Listener) -> None:
    """Send the run's pictures as they come."""
    with ctx.previews.watch(job_id) as feed:
        number = 0
        while True:
            number, preview = await feed.after(number)
            picture = base64.b64encode(preview.data).decode()
            data = {"job_id": job_id, "image": f"data:{preview.content_type};base64,{picture}"}
            await listener.send([Frame("preview", data)])


async def follow_job(ctx: Context, job: Job, said: Said, listener: Listener, subscription: Subscription) -> None:
    """Tell all that happens to one job until it has ended. Events that were lost are made up for by `job`.

    `job` and what was `said` were read after the subscription began.
    """
    unexplained_until = monotonic() + JUST_S if _just_submitted(job) else None
    first = await _frame_of(ctx, job) if unexplained_until is None else _frame(job, JUST_SUBMITTED)
    if job.status in ENDED:
        await listener.end([first, *said.frames, *([first] if said.frames else [])])
        return
    await listener.send([first, *said.frames])
    spoke = monotonic()
    while not subscription.closed:
        look = subscription.lost
        if look:
            subscription.restart()
        told: list[Frame] = []
        left_s = COMMENT_S if unexplained_until is None else max(0.0, unexplained_until - monotonic())
        for frame in await subscription.take(0 if look else left_s):
            about = frame.job
            if about is not None and about.job_id == job.id:
                if frame.event == PROGRESS and frame.order is not None and frame.order[0] <= said.until_ms:
                    continue  # told already
                told.append(frame)
                look = look or about.status in ENDED
                unexplained_until = None  # it waits no more, or this says why
            elif frame.lane == job.lane:
                told.append(frame)
                look = True
        if look or (unexplained_until is not None and monotonic() >= unexplained_until):
            unexplained_until = None
            now, frame = await job_frame(ctx, job.id)
            told.append(frame)
            if now is None or now.status in ENDED:
                await listener.end(told)
                return
            job = now
        if told:
            await listener.send(told)
            spoke = monotonic()
        if monotonic() - spoke >= COMMENT_S:
            await listener.idle()
            spoke = monotonic()


def _said(job_id: str, rows: Sequence[tuple[str, str]], after_ms: int) -> Said:
    """What the runs said later than `after_ms`."""
    frames = []
    for entry_id, text in rows:
        try:
            data = {"type": PROGRESS, "job_id": job_id, "progress": msgspec.json.decode(text)}
        except DAMAGED:
            continue  # a stranger wrote it
        frames.append(Frame(PROGRESS, data, entry_id))
        told = parse_id(entry_id)
        after_ms = told[0] if told else after_ms
    return Said(frames, after_ms)


async def job_frame(ctx: Context, job_id: str) -> tuple[Job | None, Frame]:
    """The job as it is now and the frame that tells it; None with an `error` when it is gone or damaged."""
    try:
        job = await ctx.queue.get(job_id)
    except (NoSuchJob, JobDamaged) as e:
        return None, Frame("error", {"job_id": job_id, "error": e.message})
    ctx.ended.keep(job)
    return job, await _frame_of(ctx, job)


async def _frame_of(ctx: Context, job: Job) -> Frame:
    return _frame(job, await ctx.explainer.why(job))


def _frame(job: Job, why: str) -> Frame:
    return Frame("job", job_detail(job, why), _end_id(job))


def _just_submitted(job: Job) -> bool:
    """By Redis' clock and ours: where they differ, the explanation comes at once, or again so much later."""
    return job.status is JobStatus.PENDING and 0 <= now_ms() - job.created_ms < JUST_S * 1000


def _end_id(job: Job) -> str | None:
    """The id of the last event of a job's stream: after every event of that moment. None before the end."""
    if job.status not in ENDED or job.finished_ms is None:
        return None
    return f"{job.finished_ms}-{END_SEQ}"
