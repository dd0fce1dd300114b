"""What stands in the table of routes: how one is served, who may, and all that `/openapi.json` says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Any

from aiohttp import web
from msgspec import Struct, field

from emp_orch.roles import Role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Kind(StrEnum):
    """What a route answers with."""

    JSON = "json"
    DOCUMENT = "document"  # JSON in a form of its own
    TEXT = "text"
    BINARY = "binary"
    SSE = "sse"
    WEBSOCKET = "websocket"


class Opens(StrEnum):
    """What lets a caller in where the API has a token."""

    ANYBODY = "anybody"
    TOKEN = "token"  # noqa: S105  # a word for one, and none
    MACHINE = "machine"  # a machine's own, and none of the API's
    BOTH = "both"
    JOIN = "join"  # that of `emp machine join`, at which only the handler looks


class Param(Struct, frozen=True):
    """A parameter of the query, or a header. `schema`: what is taken, as JSON Schema."""

    name: str
    summary: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


class Route(Struct, frozen=True, kw_only=True):
    """`result` is the type under `data`; None: described by `summary` alone. `more`: schemas of what stands beside it.

    `roles` are those whose tokens open it; where the API has no token it is open. `opens`: what lets a caller in.
    `names`: what a name in the path may be, where that is no usual one. `content`: media types of what is `binary`.
    `body`: what it takes; `empty`: also without one. `form`: the body is multipart/form-data of files; `binary`: it is
    any bytes. `redis`: it asks Redis before it answers.
    `statuses` are its own: those that any request may get, or any with parameters, a body or a need of Redis, are said
    of all alike (api/views/openapi).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    roles: frozenset[Role]
    result: Any = None
    body: Any = None
    empty: bool = False
    query: tuple[Param, ...] = ()
    headers: tuple[Param, ...] = ()
    more: Mapping[str, Any] = {}
    statuses: tuple[int, ...] = (200,)
    kind: Kind = Kind.JSON
    names: Mapping[str, Any] = {}
    content: tuple[str, ...] = ()
    form: bool = False
    binary: bool = False
    redis: bool = True
    opens: Opens = Opens.TOKEN


def text(pattern: str) -> dict[str, Any]:
    """The schema of a text that is `pattern` from its beginning to its end."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def number(name: str, summary: str, low: int, high: int) -> Param:
    """A whole number from `low` to `high`."""
    return Param(name, summary, {"type": "integer", "minimum": low, "maximum": high})


def choice(name: str, summary: str, *values: str) -> Param:
    return Param(name, summary, {"type": "string", "enum": list(values)})


def matching(name: str, summary: str, pattern: str) -> Param:
    return Param(name, summary, text(pattern))


def get(path: str, handler: Handler, summary: str, tag: str, roles: frozenset[Role], **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, summary=summary, tag=tag, roles=roles, **more)


def head(path: str, handler: Handler, summary: str, tag: str, roles: frozenset[Role], **more: Any) -> Route:
    return Route(method="HEAD", path=path, handler=handler, summary=summary, tag=tag, roles=roles, **more)


def post(path: str, handler: Handler, summary: str, tag: str, roles: frozenset[Role], **more: Any) -> Route:
    return Route(method="POST", path=path, handler=handler, summary=summary, tag=tag, roles=roles, **more)
