"""What the routes share: JSON answers, and bodies that are read as ComfyUI reads them."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from emp_orch.services.simulation.validation import problem

Table = list[tuple[str, str, Any]]


def json(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


async def body_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises 400 in ComfyUI's form."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        error = problem("invalid_json", "The request is not a JSON object", str(e))
        text = msgspec.json.encode({"error": error, "node_errors": {}}).decode()
        raise web.HTTPBadRequest(text=text, content_type="application/json") from e


def number_of(request: web.Request, key: str) -> int | None:
    """A whole number of the query; None when it is absent. Raises 400."""
    value = request.query.get(key)
    if value is None:
        return None
    try:
        return int(value)
    except ValueError as e:
        raise web.HTTPBadRequest(text=f"{key} must be a whole number") from e


def ids_of(value: object) -> list[str]:
    return [i for i in value if isinstance(i, str)] if isinstance(value, list) else []
