"""`GET /packages/{digest}`: worker packages, for machines. So many at once, and no more: the others come again."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from aiohttp import ETag, web

from emp_orch.api.context import context
from emp_orch.api.machine_token import is_former
from emp_orch.web.errors import Refused
from emp_orch.web.ranges import has_it, span

DIGEST = re.compile(r"[0-9a-f]{64}")
CHUNK = 256 * 1024
# Who does not take a chunk in this time gives the place to others, and goes on later where it was.
CHUNK_S = 20.0


async def package(request: web.Request) -> web.StreamResponse:
    """The archive, or one range of it; 304 to who has it."""
    digest = request.match_info["digest"]
    if await is_former(request):
        raise Refused(403, "this token is no member's any more")
    path = context(request).layout.package(digest)
    if not DIGEST.fullmatch(digest) or path.is_symlink() or not path.is_file():
        raise Refused(404, "there is no worker package of that digest", hint="`emp apply` makes this emp's")
    if has_it(request, digest):
        return _response(304, digest)
    with context(request).downloads.admit():
        return await _send(request, path, digest)


async def _send(request: web.Request, path: Path, digest: str) -> web.StreamResponse:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        start, stop = span(request, name=digest, size=size, etag=digest)
        response = _response(200 if (start, stop) == (0, size) else 206, digest)
        if response.status == 206:
            response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        response.content_length = stop - start
        await response.prepare(request)
        while start < stop:
            chunk = await asyncio.to_thread(os.pread, fd, min(CHUNK, stop - start), start)
            async with asyncio.timeout(CHUNK_S):
                await response.write(chunk)
            start += len(chunk)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    finally:
        os.close(fd)
    return response


def _response(status: int, digest: str) -> web.StreamResponse:
    headers = {
        "Content-Type": "application/x-tar",
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, immutable, max-age=86400",
    }
    response = web.StreamResponse(status=status, headers=headers)
    response.etag = ETag(digest)
    return response
