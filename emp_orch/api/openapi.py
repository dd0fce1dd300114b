"""`/openapi.json`: OpenAPI 3.1, generated from the route table and the types the handlers really use."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch import __version__
from emp_orch.api.routes import Route

REF = "#/components/schemas/{name}"
TIMESTAMP = {"type": "string", "format": "date-time"}


class Error(Struct, frozen=True, kw_only=True):
    """Every error looks like this."""

    success: bool
    error: str
    timestamp: str


def document(routes: Sequence[Route]) -> dict[str, Any]:
    types = [t for route in routes for t in (route.result, route.body) if t is not None]
    schemas, components = msgspec.json.schema_components([Error, *types], ref_template=REF)
    schema_of = {id(t): s for t, s in zip([Error, *types], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "emp", "version": __version__, "description": "Runs fleets of GPU machines."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    path_names = re.findall(r"\{(\w+)\}", route.path)
    name = getattr(route.handler, "__name__", route.path)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{name}",
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [
            *({"name": n, "in": "path", "required": True, "schema": {"type": "string"}} for n in path_names),
            *(
                {
                    "name": p.name,
                    "in": where,
                    "description": p.summary,
                    "schema": {"type": "integer" if p.integer else "string"},
                }
                for where, params in (("query", route.query), ("header", route.headers))
                for p in params
            ),
        ],
        "responses": {
            **{str(s): _response(route, s, schema_of) for s in route.statuses},
            "default": {"description": "An error", "content": _json(schema_of[id(Error)])},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"content": _json(schema_of[id(route.body)])}
    if route.form:
        file = {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
        schema = {"type": "object", "properties": {"file": file}}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return operation


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _response(route: Route, status: int, schema_of: dict[int, Any]) -> dict[str, Any]:
    said = HTTPStatus(status).phrase
    if status >= 400:
        return {"description": said, "content": _json(schema_of[id(Error)])}
    if status == 204:
        return {"description": said}
    match route.kind:
        case "sse":
            return {"description": said, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
        case "text":
            return {"description": said, "content": {"text/plain": {"schema": {"type": "string"}}}}
        case "binary":
            return {"description": said, "content": {"*/*": {"schema": {}}} if status < 300 else {}}
        case "websocket":
            return {"description": "An upgrade to WebSocket (101)"}
        case _:
            data = schema_of[id(route.result)] if route.result is not None else {}
            properties = {"success": {"const": status != 207}, **route.more, "data": data, "timestamp": TIMESTAMP}
            schema = {"type": "object", "required": ["success", "timestamp"], "properties": properties}
            return {"description": said, "content": _json(schema)}


def serving(routes: Sequence[Route]) -> Any:
    """A handler that answers with the document; encoded once."""
    body = msgspec.json.encode(document(routes))

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    return openapi
