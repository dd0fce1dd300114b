"""`fleet:{name}:overrides`: pauses, drains and sizes of pools, a hash `kind:scope` → JSON, sealed by API and CLI for
the leader.
"""

from __future__ import annotations

from typing import cast

import msgspec

from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.seals import Forged, Seal, for_override
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, KeyDamaged, decoder
from emp_orch.store.redis.keys import Keys

# Who ordered what does not fit.
UNKNOWN = "unknown"

_override = decoder(Override)


async def read_overrides(r: Client, keys: Keys, fleet: str, seal: Seal | None = None) -> tuple[Override, ...]:
    """All that stand. What does not fit pauses the whole fleet: somebody meant to hold something. With `seal`, of who
    acts by them, so does one that nobody here ordered.
    """
    try:
        texts = await _texts(r, keys, fleet)
    except KeyDamaged as e:
        return (Override(kind=OverrideKind.PAUSE, reason=e.words, by=UNKNOWN),)
    found = [_decode(field, text, fleet, seal) for field, text in texts.items()]
    return tuple(sorted(found, key=lambda o: o.key))


async def _texts(r: Client, keys: Keys, fleet: str) -> dict[str, str]:
    return cast(dict[str, str], await r.hgetall(keys.overrides(fleet)))


def _decode(field: str, text: str, fleet: str, seal: Seal | None) -> Override:
    why = f"is damaged: {text[:100]}"
    try:
        found = _override(text if seal is None else seal.opened(for_override(fleet), text, field))
        if found.key == field:
            return found
    except Forged:
        why = "was not ordered by anybody of this fleet; `emp resume` lifts it"
    except DAMAGED:
        pass
    return Override(kind=OverrideKind.PAUSE, reason=f"{field[:100]} in Redis {why}", by=UNKNOWN)


async def put_override(r: Client, keys: Keys, fleet: str, override: Override, seal: Seal) -> None:
    """Let `override` stand, in the place of one of the same kind and scope."""
    sealed = seal.sealed(for_override(fleet), msgspec.json.encode(override))
    await r.hset(keys.overrides(fleet), override.key, sealed.decode())


async def lift_override(r: Client, keys: Keys, fleet: str, key: str) -> None:
    """Take back the one with this key."""
    await r.hdel(keys.overrides(fleet), key)


async def lift_overrides(r: Client, keys: Keys, fleet: str, *, scope: str, seal: Seal | None = None) -> list[str]:
    """Take back what stands on `scope` itself, or on something that cannot be read; the keys of what was lifted."""
    lifted = []
    for field, text in (await _texts(r, keys, fleet)).items():
        about = field.partition(":")[2] if _decode(field, text, fleet, seal).key == field else "fleet"
        if about == scope and await r.hdel(keys.overrides(fleet), field):
            lifted.append(field)
    return lifted
