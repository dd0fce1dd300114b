"""`/openapi.json`: OpenAPI 3.1, generated from the route table and the types the handlers really use.

What any request may be answered, or any with parameters, with a body, or whose answer is in Redis, is said here, once
for all routes; a route's own statuses stand in the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from emp_orch import __version__
from emp_orch.api.views.query import NAME
from emp_orch.api.views.route import Kind, Opens, Route
from emp_orch.jobs.document.inputs import MAX_INPUTS
from emp_orch.roles import Role

REF = "#/components/schemas/{name}"
TIMESTAMP = {"type": "string", "format": "date-time"}
TEXT = {"type": "string"}
# A part of a path is what lies between two slashes, so never empty.
PART = {"type": "string", "minLength": 1}
# What a name in a path may be, unless its route says otherwise.
NAMED = {"type": "string", "pattern": f"^{NAME}$"}

SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token of api.token or api.tokens in emp.yaml"},
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same token, where no header can be",
    },
    "machine": {"type": "http", "scheme": "bearer", "description": "A machine's own token, or that by which it joins"},
}
SECURITY: Mapping[Opens, list[dict[str, list[str]]]] = {
    Opens.ANYBODY: [],
    Opens.TOKEN: [{"token": []}, {"query": []}],
    Opens.MACHINE: [{"machine": []}],
    Opens.BOTH: [{"machine": []}, {"token": []}, {"query": []}],
    Opens.JOIN: [{"machine": []}],
}

# Headers that come with a status, always.
_HEADERS: Mapping[int, tuple[str, ...]] = {
    206: ("Content-Range",),
    401: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    416: ("Content-Range",),
    426: ("Upgrade",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_WHOLE_NUMBERS = frozenset({"Retry-After"})


class Error(Struct, frozen=True, kw_only=True):
    """Every error looks like this."""

    success: bool
    error: str
    timestamp: str


DOCUMENT = web.AppKey("the document", bytes)


async def serve(request: web.Request) -> web.Response:
    """The document, encoded once."""
    return web.Response(body=request.app[DOCUMENT], content_type="application/json")


def encoded(routes: Sequence[Route], *, token: bool) -> bytes:
    return msgspec.json.encode(document(routes, token=token))


def document(routes: Sequence[Route], *, token: bool) -> dict[str, Any]:
    """`token`: whether the API has one, so that it asks for it."""
    types = [t for route in routes for t in (route.result, route.body) if t is not None]
    schemas, components = msgspec.json.schema_components([Error, *types], ref_template=REF)
    schema_of = {id(t): s for t, s in zip([Error, *types], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, token=token)
    return {
        "openapi": "3.1.0",
        "info": {"title": "emp", "version": __version__, "description": "Runs fleets of GPU machines."},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SCHEMES},
    }


def _operation(route: Route, schema_of: dict[int, Any], *, token: bool) -> dict[str, Any]:
    name = getattr(route.handler, "__name__", route.path)
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{name}",
        "summary": route.summary,
        "tags": [route.tag],
        # Machines have tokens in any case.
        "security": SECURITY[route.opens] if token or route.opens in (Opens.MACHINE, Opens.JOIN) else [],
        # Whose tokens open it, where the API has tokens.
        "x-emp-roles": [role for role in Role if role in route.roles],
        "parameters": _parameters(route),
        "responses": {str(s): _response(route, s, schema_of) for s in statuses(route)},
    }
    if (body := _body(route, schema_of)) is not None:
        operation["requestBody"] = body
    return operation


def _names(route: Route) -> list[str]:
    return re.findall(r"\{(\w+)\}", route.path)


def _parameters(route: Route) -> list[dict[str, Any]]:
    return [
        *({"name": n, "in": "path", "required": True, "schema": route.names.get(n, NAMED)} for n in _names(route)),
        *(
            {"name": p.name, "in": where, "description": p.summary, "schema": p.schema}
            for where, params in (("query", route.query), ("header", route.headers))
            for p in params
        ),
    ]


def _body(route: Route, schema_of: dict[int, Any]) -> dict[str, Any] | None:
    if route.body is not None:
        return {"required": not route.empty, "content": _json(schema_of[id(route.body)])}
    if route.form:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        files = {"type": "array", "items": file, "minItems": 1, "maxItems": MAX_INPUTS}
        schema = {"type": "object", "required": ["file"], "properties": {"file": files}}
        return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    if route.binary:
        return {"required": True, "content": {"*/*": {"schema": {}}}}
    return None


def statuses(route: Route) -> list[int]:
    """All that it may answer but 500, which is a fault."""
    found = {*route.statuses, 403, 415}  # the guard of Host and Origin; a body that is packed
    takes_body = route.body is not None or route.form or route.binary
    if takes_body or _names(route) or route.query or route.headers:
        found.add(400)
    if takes_body:
        found.add(413)
    if route.opens not in (Opens.ANYBODY, Opens.JOIN):
        found |= {401, 429}
    if route.redis:
        found |= {409, 503}  # a record in it is damaged; it does not answer
    return sorted(found)


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _response(route: Route, status: int, schema_of: dict[int, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if headers := _headers(route, status):
        told["headers"] = headers
    if (content := _content(route, status, schema_of)) is not None:
        told["content"] = content
    return told


def _headers(route: Route, status: int) -> dict[str, Any]:
    names = list(_HEADERS.get(status, ()))
    if route.kind is Kind.BINARY and status in (200, 206, 304):
        names.append("ETag")
    return {n: {"required": True, "schema": {"type": "integer" if n in _WHOLE_NUMBERS else "string"}} for n in names}


def _content(route: Route, status: int, schema_of: dict[int, Any]) -> dict[str, Any] | None:
    """None: an answer without a body."""
    if status in (101, 204, 304):
        return None
    if status >= 400:
        return _json(schema_of[id(Error)])
    match route.kind:
        case Kind.SSE:
            return {"text/event-stream": {"schema": {}}}  # one event after the other
        case Kind.TEXT:
            return {"text/plain": {"schema": TEXT}}
        case Kind.BINARY:
            return {kind: {"schema": {}} for kind in route.content}
        case Kind.DOCUMENT:
            return _json({"type": "object"})
        case _:
            data = schema_of[id(route.result)] if route.result is not None else {}
            properties = {"success": {"const": status != 207}, **route.more, "data": data, "timestamp": TIMESTAMP}
            return _json({"type": "object", "required": ["success", "timestamp"], "properties": properties})
