"""Conditional and partial answers for content that is known by its digest (RFC 9110 §13, §14)."""

from __future__ import annotations

from aiohttp import web

from emp_orch.web.errors import Refused


def has_it(request: web.Request, etag: str) -> bool:
    """Whether the client said that it has this very content."""
    return any(tag.value in ("*", etag) for tag in request.if_none_match or ())


def span(request: web.Request, *, name: str, size: int, etag: str) -> tuple[int, int]:
    """First byte and end of what is asked for: one range, else everything (RFC 9110 §14.2 lets a server do so)."""
    if_range = request.headers.get("If-Range")
    try:
        asked = request.http_range
    except ValueError:
        return 0, size
    if (asked.start is None and asked.stop is None) or (if_range is not None and if_range != f'"{etag}"'):
        return 0, size
    start, stop, _ = asked.indices(size)
    if start >= stop:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Refused(416, f"{name} has {size} bytes, none of them in that range", headers=headers)
    return start, stop
