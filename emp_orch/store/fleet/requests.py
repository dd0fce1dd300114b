"""`fleet:{name}:requests`: what people ask of the reconciler. Only the leader acts; the API and CLI ask here.

Each is sealed, and good once, for a while: what was asked before cannot be asked again by who can write in Redis.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

import msgspec
from msgspec import Struct, structs

from emp_orch.seals import Forged, Seal, for_request
from emp_orch.store.fleet.events import MAX_EVENTS, encode, entries_of
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, decoder
from emp_orch.store.redis.keys import Keys

MAX_REQUESTS = 1_000
# Nobody waits longer, and clocks of the hosts of one control plane differ by less.
GOOD_FOR_MS = 600_000


class Verb(StrEnum):
    RESTART_MACHINE = "restart_machine"
    RESTART_PROGRAM = "restart_program"
    FORGET_MACHINE = "forget_machine"
    CLOSE_BREAKER = "close_breaker"


class Request(Struct, frozen=True, kw_only=True):
    """`by` says where it came from: `cli`, `api`. CLOSE_BREAKER has no machine; only RESTART_PROGRAM has a program.
    `force`: FORGET_MACHINE also of a member that is at work.
    `once` tells it from any other, `at_ms` is when it was asked, by the clock of who asked.
    """

    verb: Verb
    machine_id: str = ""
    program: str | None = None
    by: str = "api"
    force: bool = False
    once: str = ""
    at_ms: int = 0


_request = decoder(Request)


async def ask(r: Client, keys: Keys, fleet: str, request: Request, seal: Seal) -> str:
    """Put a request before the reconciler; returns its id. The outcome comes as an event
    `request_done {request_id, ok, error}`."""
    asked = structs.replace(request, once=secrets.token_hex(12), at_ms=_now_ms())
    fields = {"request": seal.sealed(for_request(fleet), msgspec.json.encode(asked)).decode()}
    key = keys.requests(fleet)
    return str(await r.xadd(key, cast(Any, fields), maxlen=MAX_REQUESTS, approximate=True))


class Once:
    """Which requests were asked, and under which id: the same one under another id is somebody's repetition."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, int]] = {}

    def fits(self, entry_id: str, request: Request) -> bool:
        now_ms = _now_ms()
        if not request.once or abs(now_ms - request.at_ms) > GOOD_FOR_MS:
            return False
        self._seen = {k: v for k, v in self._seen.items() if now_ms - v[1] <= 2 * GOOD_FOR_MS}
        return self._seen.setdefault(request.once, (entry_id, now_ms))[0] == entry_id


async def pending(
    r: Client, keys: Keys, fleet: str, seal: Seal, fits: Callable[[str, Request], bool]
) -> list[tuple[str, Request | None]]:
    """Requests not answered yet, oldest first; None for one that does not fit, or that nobody here asked."""
    answer = await r.xread({keys.requests(fleet): "0-0"}, count=100)
    found = [(entry_id, _decode(fields, fleet, seal)) for entry_id, fields in entries_of(answer)]
    return [(entry_id, one if one is not None and fits(entry_id, one) else None) for entry_id, one in found]


async def answer(r: Client, keys: Keys, fleet: str, request_id: str, *, error: str) -> None:
    """Tell whoever asked, through the events stream; the request is done with. An empty `error` means it was done."""
    told = encode("request_done", {"fleet": fleet, "request_id": request_id, "ok": not error, "error": error})
    async with r.pipeline(transaction=False) as pipe:
        pipe.xadd(keys.events, cast(Any, told), maxlen=MAX_EVENTS, approximate=True)
        pipe.xdel(keys.requests(fleet), request_id)  # also where the events take nothing: it is not to be done again
        await pipe.execute()


def _decode(fields: dict[str, str], fleet: str, seal: Seal) -> Request | None:
    try:
        return _request(seal.opened(for_request(fleet), fields.get("request", ""), "a request"))
    except (Forged, *DAMAGED):
        return None


def _now_ms() -> int:
    return int(time.time() * 1000)
