"""How many replicas follow a Redis, and whether it would take writes without them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from redis import exceptions as rexc

from emp_orch.store.redis.client import Client


class Replicas(Struct, frozen=True, kw_only=True):
    """`refuses_alone`: it takes no writes when too few follow (min-replicas-to-write)."""

    following: int
    refuses_alone: bool


async def replicas(r: Client) -> Replicas | None:
    """None where an ACL forbids to ask."""
    try:
        return replicas_in(await r.info("replication"))
    except rexc.NoPermissionError:
        return None


def replicas_in(info: dict[str, Any]) -> Replicas:
    """As INFO tells."""
    lines = [value for key, value in info.items() if key.startswith("slave") and isinstance(value, dict)]
    following = sum(line.get("state") == "online" for line in lines)
    return Replicas(following=following, refuses_alone="min_slaves_good_slaves" in info)
