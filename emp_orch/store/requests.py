"""`fleet:{name}:requests`: what people ask of the reconciler. Only the leader acts; the API and CLI ask here."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct

from emp_orch.store.connect import Client
from emp_orch.store.events import entries_of
from emp_orch.store.keys import Keys

MAX_REQUESTS = 1_000


class Verb(StrEnum):
    RESTART_MACHINE = "restart_machine"
    RESTART_PROGRAM = "restart_program"
    FORGET_MACHINE = "forget_machine"


class Request(Struct, frozen=True, kw_only=True):
    """`by` says where it came from: `cli`, `api`. `program` is set for RESTART_PROGRAM."""

    verb: Verb
    machine_id: str
    program: str | None = None
    by: str = "api"


async def ask(r: Client, keys: Keys, fleet: str, request: Request) -> str:
    """Put a request before the reconciler; returns its id. The outcome comes as an event
    `request_done {request_id, ok, error}`."""
    fields = {"request": msgspec.json.encode(request).decode()}
    key = keys.requests(fleet)
    return str(await r.xadd(key, cast(Any, fields), maxlen=MAX_REQUESTS, approximate=True))


async def requests_after(r: Client, keys: Keys, fleet: str, after: str) -> list[tuple[str, Request | None]]:
    """Requests after id `after`, oldest first; None for one that does not fit."""
    answer = await r.xread({keys.requests(fleet): after}, count=100)
    return [(entry_id, _decode(fields)) for entry_id, fields in entries_of(answer)]


def _decode(fields: dict[str, str]) -> Request | None:
    try:
        return msgspec.json.decode(fields.get("request", ""), type=Request)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
