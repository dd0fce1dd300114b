"""Whether a Redis throws keys away when its memory is full, and whether it did."""

from __future__ import annotations

from msgspec import Struct
from redis import exceptions as rexc

from emp_orch.store.redis.client import Client


class Evictions(Struct, frozen=True, kw_only=True):
    """`policy` is the maxmemory-policy by which it may evict keys of emp's; empty when it evicts none, or does not
    tell. `evicted` is how many keys it evicted since it started.
    """

    policy: str = ""
    evicted: int = 0


async def evictions(r: Client) -> Evictions:
    """As INFO tells; nothing where an ACL forbids that."""
    try:
        memory, stats = await r.info("memory"), await r.info("stats")
    except rexc.NoPermissionError:
        return Evictions()
    policy = str(memory.get("maxmemory_policy", ""))
    evicts = int(memory.get("maxmemory", 0)) and policy not in ("noeviction", "")
    return Evictions(policy=policy if evicts else "", evicted=int(stats.get("evicted_keys", 0)))
