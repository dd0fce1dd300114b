"""What the doctor asks of Redis, through a client that cannot write."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from msgspec import Struct, structs
from redis.exceptions import NoPermissionError

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import DamagedKey
from emp_orch.plaintext import one_line
from emp_orch.settings import Settings
from emp_orch.store import contract
from emp_orch.store.acl import users as scoped_access
from emp_orch.store.acl.rights import Lacks, lacking, refused_write
from emp_orch.store.fleet.events import GATE_REFUSED, MAX_EVENTS, Event, Events
from emp_orch.store.redis import client
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.refusals import Refusal
from emp_orch.units import MAX_MS

# Of a machine's start-up: the first event and the last.
BOOT_EVENTS = frozenset({"machine_startup", "startup_complete"})
# What is older is a matter of the journal.
LATELY_MS = 3_600_000
MAX_WORD = 200


class GateRefused(Struct, frozen=True, kw_only=True):
    """What one machine was refused lately at the API's gate: how often, and the last command with the reason."""

    count: int
    last: str


class RedisFacts(Struct, frozen=True, kw_only=True):
    """`info` is INFO, empty where that is not allowed. `offset_ms` is Redis' clock less ours. `subscribers` listen to
    machine:startup:events.

    `boots`: machine → the start-up events kept of it. `oldest_event_ms` is how far back events are kept. `refuses`: why
    it takes no writes. `damaged`: keys that hold something else than emp's. `gate_refused`: machine → what it asked and
    may not.
    """

    info: dict[str, Any]
    offset_ms: int
    round_trip_ms: float
    subscribers: int
    boots: dict[MachineId, frozenset[str]]
    oldest_event_ms: int
    refuses: Refusal | None = None
    damaged: tuple[DamagedKey, ...] = ()
    gate_refused: dict[MachineId, GateRefused] = {}

    @property
    def run_id(self) -> str:
        return str(self.info.get("run_id", ""))


async def read_redis(settings: Settings, machines: Iterable[str] = ()) -> RedisFacts:
    """Ask Redis at `settings.redis_url`; of `machines` the keys, too. Raises Unreachable, or what redis-py raises."""
    keys = Keys(settings.prefix)
    async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
        before, began = time.time(), time.monotonic()
        redis_ms = await client.time_ms(r)
        took_s = time.monotonic() - began
        info = await _info(r)
        ((_, subscribers),) = await r.pubsub_numsub(keys.startup_channel)
        events = Events(r, keys)
        boots: dict[MachineId, set[str]] = {}
        refused: dict[MachineId, GateRefused] = {}
        oldest = "0-0"
        with suppress(KeyDamaged):
            for event in await events.recent(MAX_EVENTS):
                if event.type in BOOT_EVENTS:
                    boots.setdefault(MachineId(str(event.data.get("machine_id"))), set()).add(event.type)
                elif event.type == GATE_REFUSED and redis_ms - event.at_ms < LATELY_MS:
                    _count(refused, event)
            oldest = await events.oldest_id()
        damaged = await contract.look(r, keys, settings.fleet, machines)
        refuses = await refused_write(r, keys)
    return RedisFacts(
        info=info,
        offset_ms=redis_ms - int((before + took_s / 2) * 1000),
        round_trip_ms=took_s * 1000,
        subscribers=int(subscribers),
        boots={machine_id: frozenset(types) for machine_id, types in boots.items()},
        oldest_event_ms=int(oldest.partition("-")[0]),
        refuses=refuses,
        damaged=damaged,
        gate_refused=refused,
    )


def _count(refused: dict[MachineId, GateRefused], event: Event) -> None:
    """Anybody may have written the event: only what fits counts."""
    machine_id, count = MachineId(one_line(str(event.data.get("machine_id")))[:MAX_WORD]), event.data.get("count")
    before = refused[machine_id].count if machine_id in refused else 0
    more = count if type(count) is int and 0 < count < MAX_MS else 1
    said = " ".join(one_line(str(event.data.get(word, "")))[:MAX_WORD] for word in ("command", "error"))
    refused[machine_id] = GateRefused(count=before + more, last=said)


async def read_rights(settings: Settings) -> Lacks:
    """What the login in `settings.redis_url` may not do of what emp does. Nothing is done to find out."""
    async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
        lacks = await lacking(r, Keys(settings.prefix), settings.redis_url, replicas=settings.replicas)
        users = () if lacks.words else await scoped_access.lacking(r)
        return structs.replace(lacks, shared=scoped_access.shared(users) if users else "")


async def run_id(url: str, owner: int | None) -> str:
    """Which Redis answers at `url`; `owner` as of connect.client."""
    async with client.connected(url, owner=owner, read_only=True) as r:
        return str((await _info(r, "server")).get("run_id", ""))


async def _info(r: client.Client, *sections: str) -> dict[str, Any]:
    """Nothing where the user may not ask."""
    try:
        told: dict[str, Any] = await r.info(*sections)
    except NoPermissionError:
        return {}
    return told
