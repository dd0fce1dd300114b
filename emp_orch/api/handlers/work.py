"""`/api/work`: inputs and outputs of runs, for machines that do not see the artifact store.

A machine shows the token that it got when it joined, or was made, and gets at the files of the runs that its own
workers hold now: nothing else of the API opens to it, and no other job.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import sha256

import msgspec
from aiohttp import ETag, web

from emp_orch.api.context import Context, answer, context
from emp_orch.api.handlers.jobs import job_errors
from emp_orch.api.machine_token import holder
from emp_orch.api.views.query import name_in_path
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.artifacts import THROUGH_API
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.outputs import is_safe_name
from emp_orch.store.artifacts.assets import NoSuchAsset
from emp_orch.store.artifacts.input_sources import Content, InputSources, NotGiven
from emp_orch.store.artifacts.run import MAX_OUTPUT_BYTES
from emp_orch.store.artifacts.url import CannotStore, NoSuchArtifact, is_local, without_login
from emp_orch.store.queue.held_runs import HeldRuns
from emp_orch.store.queue.submit import NoSuchJob
from emp_orch.store.redis.client import within
from emp_orch.web.errors import Refused
from emp_orch.web.limits import STALL_S
from emp_orch.web.ranges import span

log = logging.getLogger(__name__)

PATH = "/api/work"
OUTPUT_PATH = f"{PATH}/{{id}}/{{run}}/outputs/{{name}}"
INPUT_PATH = f"{PATH}/{{id}}/{{run}}/inputs/{{name}}"
PATHS = frozenset({PATH, OUTPUT_PATH, INPUT_PATH})


async def check(request: web.Request) -> web.Response:
    """Whether outputs can be saved here, as a machine asks that is about to take jobs."""
    if await holder(request) is None:
        raise Refused(403, "this token is no machine's")
    with _stored(context(request)):
        await context(request).artifacts.check()
    return answer({})


async def put_output(request: web.Request) -> web.Response:
    """Keep the body as an output of a run. On any error, and when it does not come whole, nothing of it stays."""
    ctx, (machine, job_id, run) = context(request), await _held(request)
    name, size = request.match_info["name"], request.content_length
    if not is_safe_name(name):
        raise Refused(400, f"name: {name[:80]!r} is not what an output is called")
    if size is None:
        raise Refused(411, "Content-Length: needed, of an output")
    if size > MAX_OUTPUT_BYTES:
        raise Refused(
            413, f"{name} was not saved: it is larger than {MAX_OUTPUT_BYTES} bytes, the most one output may have"
        )
    with ctx.uploads.admit(machine), _stored(ctx):
        kind = request.headers.get("Content-Type", "")
        output = await ctx.artifacts.run(job_id, run).save(name, kind, _body(request, size))
    return answer(msgspec.to_builtins(output), status=201)


async def _body(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body, to its end. Raises Refused there unless it is what was promised, and the run is still held."""
    got, digest = 0, sha256()
    while True:
        try:
            async with asyncio.timeout(STALL_S):
                chunk = await request.content.readany()
        except TimeoutError as e:
            raise Refused(408, f"nothing came for {STALL_S:g} s") from e
        except web.RequestPayloadError as e:
            raise Refused(400, f"the body did not come whole: {e}") from e
        if not chunk:
            break
        got += len(chunk)
        digest.update(chunk)
        yield chunk
    if got != size:
        raise Refused(400, f"the body has {got} bytes, {size} were promised")
    promised = request.headers.get("Content-Digest", "")
    if promised != f"sha-256=:{base64.b64encode(digest.digest()).decode()}:":
        raise Refused(400, "Content-Digest: is not that of the body")
    await _held(request)


async def get_input(request: web.Request) -> web.StreamResponse:
    """The content of an input of a job that a worker of this machine runs; Range is heeded."""
    _, job_id, _ = await _held(request)
    name = request.match_info["name"]
    with _found(), job_errors():
        async with within():
            job = await context(request).queue.get(job_id)
        content = await _content(context(request), job, name)
    start, stop = span(request, name=name, size=content.size, etag=content.sha256) if content.size else (0, 0)
    whole = (start, stop) == (0, content.size)
    headers = {"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff"}
    response = web.StreamResponse(status=200 if whole else 206, headers=headers)
    if not whole:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    response.etag, response.content_length = ETag(content.sha256), stop - start
    await response.prepare(request)
    await _send(request, response, content, start, stop)
    return response


async def _content(ctx: Context, job: Job, name: str) -> Content:
    source = job.inputs.get(name)
    if source is None or source.url:
        raise Refused(404, f"job {job.id} has no input of that name here")

    async def job_of(job_id: str) -> Job:
        async with within():
            return await ctx.queue.get(job_id)

    return await InputSources(ctx.artifacts, ctx.assets, job_of).find(source, job)


async def _send(request: web.Request, response: web.StreamResponse, content: Content, start: int, stop: int) -> None:
    try:
        async for chunk in content.read(start, stop):
            async with asyncio.timeout(STALL_S):
                await response.write(chunk)
    except (EmpError, TimeoutError) as e:
        # The head is sent: all that is left is to cut the stream, so that the machine knows it is not whole.
        log.warning("%s", e.message if isinstance(e, EmpError) else f"{request.path}: it is not taken")
        if request.transport is not None:
            request.transport.abort()


async def _held(request: web.Request) -> tuple[str, str, str]:
    """Machine, job and run, once it is clear that a worker of the machine that asks has them in hand. Raises Refused.

    Whoever has no token of a machine learns nothing of any job; a machine nothing of the jobs of others.
    """
    machine = await holder(request)
    if machine is None:
        raise Refused(403, "this token is no machine's")
    ctx, job_id, run = context(request), name_in_path(request, "id"), name_in_path(request, "run")
    async with within():
        held_by = await HeldRuns(ctx.line.call, ctx.keys).held_by(job_id, run)
    if held_by != machine:
        raise Refused(409, f"no worker of {machine} holds run {run} of job {job_id} now")
    return machine, job_id, run


@contextmanager
def _stored(ctx: Context) -> Iterator[None]:
    """What the store refuses, in words that name no place of this host."""
    try:
        yield
    except CannotStore as e:
        where = without_login(ctx.settings.artifacts)
        folder = where.partition("://")[2] if is_local(where) else where
        words = e.message.replace(where, THROUGH_API).replace(folder, THROUGH_API)
        log.warning("%s", e.message)
        raise Refused(507, words, hint=e.hint) from e


@contextmanager
def _found() -> Iterator[None]:
    try:
        yield
    except (NotGiven, NoSuchAsset, NoSuchArtifact, NoSuchJob) as e:
        raise Refused(404, e.message, hint=e.hint) from e
