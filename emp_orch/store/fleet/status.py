"""`fleet:{name}:status`: what the reconciler's last tick saw and decided. One writer: the leader."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from emp_orch.errors import Damaged
from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.model.package import Build
from emp_orch.fleet.policy.item import Item
from emp_orch.jobs.outcome.losses import Loss
from emp_orch.store.fleet.fencing import write
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, MAX_FLEET_BYTES, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

_WRITE = script("fleet/write")


class BreakerStatus(Struct, frozen=True, kw_only=True):
    """An open breaker. `trial` are the machines that are tried meanwhile."""

    reason: str
    since_ms: int
    trial: tuple[str, ...] = ()


class RolloutStatus(Struct, frozen=True, kw_only=True):
    """A generation on its way. `pending` counts the machines that it changes and that are not in order yet, `done`
    those that are. `broken`: machines that failed with it; `halted`: it is given to no further ones because of them.
    """

    generation: int
    pending: int
    stalled: bool
    since_progress_ms: int
    done: int = 0
    broken: tuple[str, ...] = ()
    halted: bool = False


class PoolStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A pool as the leader saw it. Of `least` to `most` members `wanted` are to be there, `there` are, or were asked
    for; of these `expected` have not joined yet, and `ready` take jobs; `leaving` are on their way out. `why` it is
    that size, `coming` what it will be before long. `waiting` jobs that it could run, `running` those on it.
    `engine`: what that said last where something is wrong. `order`: the size that a person ordered, and why; empty
    where none did.
    """

    provider: str
    least: int
    most: int
    wanted: int
    there: int
    expected: int = 0
    ready: int = 0
    leaving: int = 0
    why: str = ""
    coming: str = ""
    waiting: int = 0
    running: int = 0
    engine: str = ""
    order: str = ""


class RedisStatus(Struct, frozen=True, kw_only=True):
    """What is wrong with Redis itself. `lost` are the jobs that it lost last, within a day; `evicts`: it throws keys
    away when its memory is full, by `policy` (empty: not any more), or did within minutes; `evicted` since it started.
    `replicas` follow it of those `wanted`; as many, where nothing is known.
    """

    lost: Loss | None = None
    policy: str = ""
    evicts: bool = False
    evicted: int = 0
    replicas: int = 0
    wanted: int = 0

    @property
    def alone(self) -> str:
        """In words, with the way out; empty while as many replicas follow as are wanted."""
        if self.replicas >= self.wanted:
            return ""
        return f"{too_few(self.replicas, self.wanted)}; {MORE_REPLICAS}"

    @property
    def eviction(self) -> str:
        """In words; empty when it does not evict."""
        return evicting(self.policy, self.evicted) if self.evicts else ""

    @property
    def way_out(self) -> str:
        return NO_EVICTION


NO_EVICTION = "set maxmemory-policy noeviction there, and raise maxmemory"


MORE_REPLICAS = "bring its replicas back; their logs say why they do not follow"


def follow(replicas: int) -> str:
    """`1 replica follows`, `2 replicas follow`."""
    return f"{replicas} {'replica follows' if replicas == 1 else 'replicas follow'}"


def too_few(replicas: int, wanted: int) -> str:
    """What is wrong with a Redis that so few replicas follow."""
    return f"{follow(replicas)} Redis, {wanted} wanted (redis.replicas): what is submitted now is lost if it fails over"


def evicting(policy: str, evicted: int) -> str:
    """What a Redis does that evicts by `policy`, and did to `evicted` keys."""
    by = f" (maxmemory-policy {policy})" if policy else ""
    so_far = f"; it evicted {evicted} {'key' if evicted == 1 else 'keys'} since it started" if evicted else ""
    return f"Redis throws jobs and reports away when its memory is full{by}{so_far}"


class FleetStatus(Struct, frozen=True, kw_only=True):
    """`at_ms` is Redis TIME of the tick: a status older than a few intervals means no reconciler runs. `paused` is why
    the whole fleet is; `overrides` are all pauses, drains and sizes of pools. `installed`: the emp on the disk
    of the reconciler's host. `courses_ms`: when what is known of the pools' last day was last another.
    """

    fleet: str
    generation: int
    leader: str
    epoch: int
    at_ms: int
    interval_ms: int
    drift: tuple[Item, ...]
    plan: tuple[str, ...]
    paused: str = ""
    overrides: tuple[Override, ...] = ()
    breaker: BreakerStatus | None = None
    rollout: RolloutStatus | None = None
    installed: Build | None = None
    redis: RedisStatus = RedisStatus()
    pools: dict[PoolName, PoolStatus] = {}
    courses_ms: int = 0

    @property
    def in_sync(self) -> bool:
        return not self.drift


_decode = decoder(FleetStatus, MAX_FLEET_BYTES)


async def write_status(r: Client, keys: Keys, mandate: Mandate, status: FleetStatus) -> None:
    """Raises NotLeader when `mandate` does not stand any more."""
    await write(r, keys, mandate, _WRITE, to=[keys.status(mandate.fleet)], args=[msgspec.json.encode(status)])


async def read_status(r: Client, keys: Keys, fleet: str) -> FleetStatus | None:
    """The last status; None when no reconciler ever wrote one."""
    key = keys.status(fleet)
    return decode_status(await r.getrange(key, 0, MAX_FLEET_BYTES) or None, key)


def decode_status(text: bytes | str | None, key: str) -> FleetStatus | None:
    """The status in `text`, as `key` has it. Raises Damaged, naming `key`, for one that does not fit."""
    if text is None:
        return None
    try:
        return _decode(text)
    except DAMAGED as e:
        raise Damaged(f"{key} in Redis is damaged: {e}", hint="the reconciler writes a new one") from e
