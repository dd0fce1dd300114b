"""What jobs made, over HTTP: listed, and streamed out of the artifact store.

Whoever submits a job decides what is in its outputs, so a browser never runs one: types are taken literally, pages and
scripts only ever downloaded, and a sandbox stands around the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import quote

from aiohttp import ETag, web

from emp_orch.api.context import answer, context
from emp_orch.api.handlers.jobs import job_errors
from emp_orch.api.views.jobs import output_view
from emp_orch.api.views.query import name_in_path
from emp_orch.errors import EmpError
from emp_orch.jobs.document.model import Output
from emp_orch.jobs.document.outputs import safe_content_type, safe_name
from emp_orch.store.artifacts.url import NoSuchArtifact
from emp_orch.store.redis.client import within
from emp_orch.web.errors import Refused
from emp_orch.web.ranges import has_it, span

log = logging.getLogger(__name__)

# What a page may show in place. SVG holds scripts.
_SHOWN = ("image/", "video/", "audio/")
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    # A job that is run again makes other outputs of the same names.
    "Cache-Control": "private, no-cache",
    "Accept-Ranges": "bytes",
}


async def list_artifacts(request: web.Request) -> web.Response:
    job_id = name_in_path(request, "id")
    return answer([output_view(job_id, output) for output in await _outputs(request, job_id)])


async def artifact(request: web.Request) -> web.StreamResponse:
    """The bytes, or one range of them; 304 to who has them; 410 when the store has lost them."""
    job_id, name = name_in_path(request, "id"), request.match_info["name"]
    output = next((o for o in await _outputs(request, job_id) if o.name == name), None)
    if output is None:
        raise Refused(404, f"job {job_id} has no output of that name", hint=f"see /api/jobs/{job_id}/artifacts")
    store = context(request).artifacts
    try:
        # Who has the content already, or asks for the head alone, has nothing read.
        known = request.method == "HEAD" or has_it(request, output.sha256)
        path, content = (await store.find(job_id, output), None) if known else await store.opened(job_id, output)
    except NoSuchArtifact as e:
        raise Refused(410, e.message, hint=e.hint) from e
    headers = {**_SAFE, "Content-Type": safe_content_type(output.content_type), "Content-Disposition": _shown(output)}
    if has_it(request, output.sha256):
        return _response(304, headers, output)
    start, stop = span(request, name=output.name, size=output.size, etag=output.sha256)
    whole = (start, stop) == (0, output.size)
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{output.size}"
    status = 200 if whole else 206
    if content is not None:  # head and bytes leave together
        return _response(status, headers, output, content[start:stop])
    response = _response(status, headers, output)
    response.content_length = stop - start
    await response.prepare(request)
    if request.method != "HEAD":
        try:
            async for chunk in store.span(path, start, stop, what=f"{output.name} of job {job_id}"):
                await response.write(chunk)
        except EmpError as e:
            # The head is sent: all that is left is to cut the stream, so that the client knows it is not whole.
            log.warning("%s", e.message)
            if request.transport is not None:
                request.transport.abort()
    return response


async def _outputs(request: web.Request, job_id: str) -> tuple[Output, ...]:
    ctx = context(request)
    job = ctx.ended.get(job_id)
    if job is None:
        with job_errors():
            async with within():
                job = await ctx.queue.get(job_id)
        ctx.ended.keep(job)
    return job.outputs


def _response(status: int, headers: Mapping[str, str], output: Output, body: bytes | None = None) -> web.StreamResponse:
    if body is None:
        response = web.StreamResponse(status=status, headers=headers)
    else:
        response = web.Response(status=status, headers=headers, body=body)
    response.etag = ETag(output.sha256)
    return response


def _shown(output: Output) -> str:
    """Content-Disposition, RFC 6266."""
    kind = safe_content_type(output.content_type).partition(";")[0]
    in_place = kind == "text/plain" or (kind.startswith(_SHOWN) and not kind.startswith("image/svg"))
    name = safe_name(output.name)
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"{'inline' if in_place else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
