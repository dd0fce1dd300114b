"""`fleet:{name}:overrides`: pauses and drains, a hash `kind:scope` → JSON, by API and CLI for the leader."""

from __future__ import annotations

from typing import cast

import msgspec

from emp_orch.fleet.overrides import Override, OverrideKind
from emp_orch.store.connect import Client
from emp_orch.store.damaged import DAMAGED
from emp_orch.store.keys import Keys


async def read_overrides(r: Client, keys: Keys, fleet: str) -> tuple[Override, ...]:
    """All that stand. One that does not fit pauses the whole fleet: somebody meant to hold something."""
    found = [_decode(field, text) for field, text in (await _texts(r, keys, fleet)).items()]
    return tuple(sorted(found, key=lambda o: o.key))


async def _texts(r: Client, keys: Keys, fleet: str) -> dict[str, str]:
    return cast(dict[str, str], await r.hgetall(keys.overrides(fleet)))


def _decode(field: str, text: str) -> Override:
    try:
        found = msgspec.json.decode(text, type=Override)
        if found.key == field:
            return found
    except DAMAGED:
        pass
    return Override(kind=OverrideKind.PAUSE, reason=f"{field} in Redis is damaged: {text[:100]}", by="unknown")


async def put_override(r: Client, keys: Keys, fleet: str, override: Override) -> None:
    """Let `override` stand, in the place of one of the same kind and scope."""
    await r.hset(keys.overrides(fleet), override.key, msgspec.json.encode(override).decode())


async def lift_overrides(r: Client, keys: Keys, fleet: str, *, scope: str) -> list[str]:
    """Take back what stands on `scope` itself, or on something that cannot be read; the keys of what was lifted."""
    lifted = []
    for field, text in (await _texts(r, keys, fleet)).items():
        about = field.partition(":")[2] if _decode(field, text).key == field else "fleet"
        if about == scope and await r.hdel(keys.overrides(fleet), field):
            lifted.append(field)
    return lifted
