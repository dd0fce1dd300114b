"""`POST /api/jobs`: one job, or a list of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, structs

from emp_orch.api.context import answer, context
from emp_orch.api.handlers.job_wait import MAX_WAIT_S, until_ended
from emp_orch.api.views.jobs import JobDetail, job_detail
from emp_orch.api.views.query import decoded, only_known, read_body, whole_number
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import (
    DEFAULT_RETRIES,
    JOB_ID,
    MAX_BATCH,
    MAX_JOB_BYTES,
    MAX_KEY,
    MAX_PRIORITY,
    MAX_RETRIES,
    SERVICE_NAME,
    Submission,
    parse_batch,
    parse_batch_text,
    parse_submission,
)
from emp_orch.jobs.document.workflows import Services
from emp_orch.store.artifacts.job_inputs import InputsGone
from emp_orch.store.queue.submit import BATCH, Submitted
from emp_orch.store.redis.client import TRANSIENT
from emp_orch.store.redis.confirmed import NotConfirmed
from emp_orch.store.redis.refusals import refusal_of
from emp_orch.web.errors import Refused

# A full list of jobs of 6 KiB each; larger ones go in more calls.
MAX_LIST_BYTES = 64 * 1024 * 1024
# A larger body is read by a thread, so that streams go on meanwhile.
LARGE_BYTES = 128 * 1024

KEY_HEADER = "Idempotency-Key"


class OutputOf(Struct, frozen=True, kw_only=True):
    """An output of another job, by its name there."""

    id: str
    output: str


class InputBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the four. `asset`: `sha256:…` as POST /api/assets answered. `job`: also as `ID/OUTPUT`."""

    base64: str | None = None
    asset: str | None = None
    url: str | None = None
    job: OutputOf | str | None = None


class JobBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a job is submitted as; jobs/submission.py checks it and names every problem at once.

    `payload` for a service with the connector comfyui: any form of docs/comfyui.md, also as a text of JSON.
    """

    service: Annotated[str, Meta(pattern=f"^{SERVICE_NAME}$")]
    payload: dict[str, Any] | str = {}
    inputs: dict[str, InputBody] = {}
    requirements: dict[str, Any] | None = None
    priority: Annotated[int, Meta(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    max_retries: Annotated[int, Meta(ge=0, le=MAX_RETRIES)] = DEFAULT_RETRIES
    id: Annotated[str, Meta(pattern=f"^{JOB_ID}$")] | None = None
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=MAX_KEY)] | None = None


JobsBody = JobBody | Annotated[list[JobBody], Meta(min_length=1, max_length=MAX_BATCH)]


class SubmittedView(Struct, frozen=True, kw_only=True):
    """`created` is false when a job of that id was there already, which changes nothing.

    `same`: it asks for the same. `conflict`: it does not, so this one was not queued. `job`: the whole of it, where
    `wait` was asked for and it ended in that time.
    """

    job_id: str
    created: bool
    status: JobStatus
    same: bool
    conflict: bool = False
    job: JobDetail | None = None


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def taken(done: Submitted) -> str:
    """Why a job was not queued whose id is another's."""
    return f"another job has the id {done.job_id} already: its id or idempotency key was used for it"


async def submit(request: web.Request) -> web.Response:
    """One: 201, 200 when it was there already, 409 when another has its id. A list: 201, 207 when one of
    them does, or when Redis took only the first ones, which `data` and `job_ids` then are.

    With `wait` the answer to one job comes when it has ended, or after so many seconds.
    """
    only_known(request, ("wait",))
    wait_s = whole_number(request, "wait", default=0, low=0, high=MAX_WAIT_S)
    raw = await read_body(request, most=MAX_LIST_BYTES)
    is_list = raw.lstrip().startswith(b"[")
    if len(raw) > MAX_JOB_BYTES and not is_list:
        raise Refused(413, f"the request body is larger than {MAX_JOB_BYTES} bytes, the most that one job may have")
    key = request.headers.get(KEY_HEADER)
    if is_list:
        if wait_s:
            raise Refused(400, "wait: is for one job; of a list, follow /api/events/monitor")
        if key is not None:
            raise Refused(400, f"{KEY_HEADER}: is for one job; in a list each has its own idempotency_key")
        return await _submit_list(request, await _jobs_of(raw, await context(request).services.now()))
    parsed = await asyncio.to_thread(decoded, raw, _decoder) if len(raw) > LARGE_BYTES else decoded(raw, _decoder)
    if not isinstance(parsed, dict):
        raise Refused(400, "body: expected a job (an object), or a list of jobs")
    if key is not None and parsed.setdefault("idempotency_key", key) != key:
        raise Refused(400, f"{KEY_HEADER}: contradicts the job's idempotency_key")
    ctx = context(request)
    services = await ctx.services.now()
    if len(raw) > LARGE_BYTES:
        asked = await asyncio.to_thread(parse_submission, parsed, services)
    else:
        asked = parse_submission(parsed, services)
    (job,) = await placed(request, [asked])
    done = await ctx.queue.submit(job)
    if not done.same:
        raise Refused(409, taken(done), hint="submit it under another id, or the same job as before")
    view = _view(done)
    if wait_s and (ended := await until_ended(ctx, done.job_id, wait_s)) is not None:
        view = structs.replace(view, job=job_detail(ended, await ctx.explainer.why(ended)))
    return answer(view, status=201 if done.created else 200, job_id=done.job_id)


async def placed(request: web.Request, jobs: Sequence[Submission]) -> list[Submission]:
    """The jobs with their inputs where workers find them; 409 when a named asset is gone."""
    try:
        return await context(request).inputs.placed(jobs)
    except InputsGone as e:
        raise Refused(409, e.message, hint=e.hint) from e


async def _jobs_of(raw: bytes, services: Services) -> list[Submission]:
    """Decoding holds Python's lock: job by job, streams go on meanwhile. All are checked before any is queued."""
    if len(raw) > LARGE_BYTES:
        return await asyncio.to_thread(parse_batch_text, raw, services)
    return parse_batch(decoded(raw, _decoder), services)


async def _submit_list(request: web.Request, jobs: list[Submission]) -> web.Response:
    done: list[Submitted] = []
    stopped = ""
    try:
        async for batch in context(request).queue.submit_batches(await placed(request, jobs)):
            done += batch
    except TRANSIENT as e:
        if not done:
            raise
        stopped = _stopped(len(done), len(jobs), e)
    ids = [d.job_id for d in done]
    conflicts = sum(not d.same for d in done)
    views = [_view(d) for d in done]
    if not conflicts and not stopped:
        return answer(views, status=201, job_ids=ids)
    told = f"{conflicts} of {len(done)} jobs were not queued: their ids or idempotency keys were used for other jobs"
    error = "; ".join([stopped] * bool(stopped) + [told] * bool(conflicts))
    return answer(views, status=207, success=False, error=error, job_ids=ids)


def _stopped(queued: int, asked: int, e: BaseException) -> str:
    """Why Redis took only the first of a list."""
    if isinstance(e, NotConfirmed):
        return f"{queued} of {asked} jobs were queued; of the next, at most {BATCH}, Redis {e.says}"
    if (refusal := refusal_of(e)) is not None:
        return f"{queued} of {asked} jobs were queued, those after them not: Redis {refusal.says}"
    return (
        f"{queued} of {asked} jobs were queued, and perhaps up to {BATCH} after them: Redis does not answer any more; "
        "only jobs with ids of their own are safe to be sent again"
    )


def _view(done: Submitted) -> SubmittedView:
    return SubmittedView(
        job_id=done.job_id, created=done.created, status=done.status, same=done.same, conflict=not done.same
    )
