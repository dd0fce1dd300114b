"""`fleet:{name}:status`: what the reconciler's last tick saw and decided. One writer: the leader."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.drift import Drift
from emp_orch.store.connect import Client
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.keys import Keys


class DriftStatus(Struct, frozen=True, kw_only=True):
    """A drift with its memory. `action` is the operation it leads to, in words, `operation` its key; `held` says
    why there is none now."""

    drift: Drift
    since_ms: int
    action: str
    operation: str = ""
    attempts: int = 0
    last_attempt_ms: int | None = None
    next_attempt_ms: int | None = None
    held: str = ""


class FleetStatus(Struct, frozen=True, kw_only=True):
    """`at_ms` is Redis TIME of the tick: a status older than a few intervals means no reconciler runs."""

    fleet: str
    generation: int
    leader: str
    epoch: int
    at_ms: int
    interval_ms: int
    drift: tuple[DriftStatus, ...]
    plan: tuple[str, ...]
    paused: str = ""

    @property
    def in_sync(self) -> bool:
        return not self.drift


_decoder = msgspec.json.Decoder(FleetStatus)


async def write_status(r: Client, keys: Keys, status: FleetStatus) -> None:
    await r.set(keys.status(status.fleet), msgspec.json.encode(status))


async def read_status(r: Client, keys: Keys, fleet: str) -> FleetStatus | None:
    """The last status; None when no reconciler ever wrote one."""
    text = await r.get(keys.status(fleet))
    if text is None:
        return None
    try:
        return _decoder.decode(text)
    except DAMAGED as e:
        raise EmpError(f"{keys.status(fleet)} in Redis is damaged: {e}", hint="the reconciler writes a new one") from e
