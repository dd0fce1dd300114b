"""`fleet:{name}:requests`: what people ask of the reconciler. Only the leader acts; the API and CLI ask here."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.store.connect import Client
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.events import Events, entries_of
from emp_orch.store.keys import Keys

MAX_REQUESTS = 1_000


class Verb(StrEnum):
    RESTART_MACHINE = "restart_machine"
    RESTART_PROGRAM = "restart_program"
    FORGET_MACHINE = "forget_machine"
    CLOSE_BREAKER = "close_breaker"


class Request(Struct, frozen=True, kw_only=True):
    """`by` says where it came from: `cli`, `api`. CLOSE_BREAKER has no machine; only RESTART_PROGRAM has a program."""

    verb: Verb
    machine_id: str = ""
    program: str | None = None
    by: str = "api"


async def ask(r: Client, keys: Keys, fleet: str, request: Request) -> str:
    """Put a request before the reconciler; returns its id. The outcome comes as an event
    `request_done {request_id, ok, error}`."""
    fields = {"request": msgspec.json.encode(request).decode()}
    key = keys.requests(fleet)
    return str(await r.xadd(key, cast(Any, fields), maxlen=MAX_REQUESTS, approximate=True))


async def pending(r: Client, keys: Keys, fleet: str) -> list[tuple[str, Request | None]]:
    """Requests not answered yet, oldest first; None for one that does not fit."""
    answer = await r.xread({keys.requests(fleet): "0-0"}, count=100)
    return [(entry_id, _decode(fields)) for entry_id, fields in entries_of(answer)]


async def answer(r: Client, keys: Keys, fleet: str, request_id: str, *, error: str) -> None:
    """Tell whoever asked, through the events stream; the request is done with. An empty `error` means it was done."""
    await Events(r, keys).append("request_done", fleet=fleet, request_id=request_id, ok=not error, error=error)
    await r.xdel(keys.requests(fleet), request_id)


def _decode(fields: dict[str, str]) -> Request | None:
    try:
        return msgspec.json.decode(fields.get("request", ""), type=Request)
    except DAMAGED:
        return None
