"""Files given to jobs, over HTTP: taken in as they come, and given back as plain downloads."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from aiohttp import BodyPartReader, ETag, MultipartReader, web
from msgspec import Struct

from emp_orch.api.context import answer, context
from emp_orch.errors import EmpError
from emp_orch.jobs.document.inputs import MAX_INPUTS, is_digest
from emp_orch.jobs.document.outputs import safe_content_type
from emp_orch.settings import InputLimits
from emp_orch.store.artifacts.assets import NoSuchAsset, TooLarge, content_type_of
from emp_orch.store.redis.client import within
from emp_orch.web.errors import Refused
from emp_orch.web.ranges import has_it, span

log = logging.getLogger(__name__)

TYPE = "application/octet-stream"
# What somebody uploaded is never shown in place: a browser only ever saves it.
_SAFE = {
    "Content-Type": TYPE,
    "Content-Disposition": "attachment",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private, immutable, max-age=3600",
    "Accept-Ranges": "bytes",
}
_CHUNK = 256 * 1024
_MAX_NAME = 1024


class AssetView(Struct, frozen=True, kw_only=True):
    """`name` as it was sent. `created` is false when its content was kept already."""

    asset: str
    name: str
    size: int
    content_type: str
    created: bool


class AssetList(Struct, frozen=True, kw_only=True):
    """In the order of the form."""

    assets: list[AssetView]


async def upload(request: web.Request) -> web.Response:
    """Keep every file of the form. 413 for one that is too large; those before it stay, for a while."""
    limits = context(request).settings.inputs
    if limits is None:
        raise Refused(409, "this fleet was applied by an emp that knew no assets", hint="run `emp apply` again")
    if not request.content_type.startswith("multipart/"):
        raise Refused(400, "body: expected multipart/form-data", hint="curl -F file=@photo.png …/api/assets")
    try:
        kept = [view async for view in _kept(request, await request.multipart(), limits)]
    except (ValueError, web.RequestPayloadError) as e:
        raise Refused(400, f"body: not multipart/form-data: {e}") from e
    if not kept:
        raise Refused(400, "body: holds no file", hint="curl -F file=@photo.png …/api/assets")
    return answer(AssetList(assets=kept), status=201, assets=kept)


async def _kept(request: web.Request, form: MultipartReader, limits: InputLimits) -> AsyncIterator[AssetView]:
    count = 0
    while (part := await form.next()) is not None:
        count += 1
        if count > MAX_INPUTS:
            raise Refused(400, f"body: more than {MAX_INPUTS} files, upload the rest by another call")
        if not isinstance(part, BodyPartReader) or part.filename is None:
            raise Refused(400, "body: every part must be a file, with a filename")
        name = part.filename[:_MAX_NAME]
        try:
            kept = await context(request).assets.save(name or "the file", _chunks(part), most=limits.max_bytes)
        except TooLarge as e:
            raise Refused(413, e.message, hint=e.hint) from e
        said = part.headers.get("Content-Type", "")
        kind = safe_content_type(said) if said else content_type_of(name)
        yield AssetView(asset=kept.asset, name=name, size=kept.size, content_type=kind, created=kept.created)


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_CHUNK):
        yield chunk


async def asset(request: web.Request) -> web.StreamResponse:
    """The bytes, or one range of them; 304 to who has them."""
    named = request.match_info["digest"]
    digest = named if named.startswith("sha256:") else f"sha256:{named}"
    assets = context(request).assets
    async with within():
        if not is_digest(digest) or not await assets.touch(digest):
            raise Refused(404, "there is no such asset", hint="it was never uploaded, or jobs.inputs.keep is over")
    try:
        size = await assets.size(digest)
    except NoSuchAsset as e:
        raise Refused(404, e.message, hint=e.hint) from e
    tag = digest.removeprefix("sha256:")
    if has_it(request, tag):
        return _response(304, tag)
    start, stop = span(request, name=digest, size=size, etag=tag)
    whole = (start, stop) == (0, size)
    response = _response(200 if whole else 206, tag)
    if not whole:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.content_length = stop - start
    await response.prepare(request)
    if request.method != "HEAD":
        try:
            async for chunk in assets.read(digest, start=start, stop=stop):
                await response.write(chunk)
        except EmpError as e:
            # The head is sent: all that is left is to cut the stream, so that the client knows it is not whole.
            log.warning("%s", e.message)
            if request.transport is not None:
                request.transport.abort()
    return response


def _response(status: int, tag: str) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers=_SAFE)
    response.etag = ETag(tag)
    return response
