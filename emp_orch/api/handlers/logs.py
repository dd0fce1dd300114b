"""`GET /api/logs/{component}`: the end of one log file."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from aiohttp import web

from emp_orch.api.context import answer, context
from emp_orch.api.views.query import whole_number
from emp_orch.layout import Layout
from emp_orch.web.errors import Refused

COMPONENT = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
MAX_LINES = 5_000
MAX_BYTES = 1024 * 1024


async def tail_log(request: web.Request) -> web.Response:
    layout = context(request).layout
    component = request.match_info["component"]
    if not COMPONENT.fullmatch(component):
        raise Refused(400, "component: only letters, digits and hyphens")
    count = whole_number(request, "lines", default=200, low=1, high=MAX_LINES)
    path = layout.log(component)
    if path.is_symlink() or not path.is_file():
        known = ", ".join(components(layout)) or "none yet"
        raise Refused(404, f"there is no log of {component}; there are: {known}")
    lines, whole = await asyncio.to_thread(tail, path, count)
    return answer({"component": component, "lines": lines, "whole": whole})


def components(layout: Layout) -> list[str]:
    return sorted(p.stem for p in layout.logs.glob("*.log") if COMPONENT.fullmatch(p.stem))


def tail(path: Path, count: int) -> tuple[list[str], bool]:
    """The last `count` lines of at most MAX_BYTES, and whether that is the whole file."""
    with path.open("rb") as f:
        size = f.seek(0, 2)
        f.seek(max(0, size - MAX_BYTES))
        data = f.read(MAX_BYTES)
    lines = data.decode("utf-8", "replace").splitlines()
    cut = size > MAX_BYTES
    if cut and lines:
        lines = lines[1:]  # its beginning is missing
    return lines[-count:], not cut and len(lines) <= count
