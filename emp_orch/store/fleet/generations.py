"""Generations: each applied fleet, resolved and immutable, numbered 1, 2, 3 …

What is stored holds no secret: references stay references, and of the Redis URL only the prefix is kept. Each is sealed
by the fleet's key: who acts by a generation reads it with that, and believes no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from emp_orch.errors import Damaged
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.fleet.plan.changes import PACKAGE_PINNED, changed
from emp_orch.seals import Forged, Seal, for_generation
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, MAX_FLEET_BYTES, REPAIR, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

KEPT = 50
# The number and the time are in them.
MARK_CHARS = 64
# Of the number of a generation: far beyond what anybody applies.
MAX_DIGITS = 12


class Generation(Struct, frozen=True, kw_only=True):
    """`prune` and `allow_empty` are what the person who applied it said about machines it no longer names.

    `by` is who published it, `why` how it came to be (`apply emp.yaml`, `rollback to 3`), `package` what its workers
    run, `emp` the digest of the emp that published it; all are empty in those of older versions of emp.
    """

    number: int
    at_ms: int
    fleet: Fleet
    digest: str
    prune: bool = False
    allow_empty: bool = False
    by: str = ""
    why: str = ""
    package: WorkerPackage | None = None
    emp: str = ""


_PUBLISH = script("fleet/publish")

_decode = decoder(Generation, MAX_FLEET_BYTES)


def without_secrets(fleet: Fleet) -> Fleet:
    """`fleet` fit to be stored and shown: no connection URLs."""
    bare = msgspec.structs.replace(fleet.redis, url="", machine_url="")
    return msgspec.structs.replace(fleet, redis=bare)


async def current_number(r: Client, keys: Keys, fleet: str) -> int:
    text = str(await r.getrange(keys.generation(fleet), 0, 40))
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise Damaged(f"{keys.generation(fleet)} in Redis is {text[:40]!r}, not a number", hint=REPAIR)
    return int(text)


async def read_generation(r: Client, keys: Keys, fleet: str, seal: Seal | None = None) -> Generation | None:
    """The current generation; None when none was published. With `seal`, of who acts by it, raises Forged."""
    number = await current_number(r, keys, fleet)
    return None if number == 0 else await read_numbered(r, keys, fleet, number, seal)


async def spec_mark(r: Client, keys: Keys, fleet: str, number: int) -> str:
    """What tells the current generation from any other, at the price of two short answers: which number is current, and
    the beginning of what stands under `number`. An emptied Redis counts from 1 again, but at another time.
    """
    async with r.pipeline(transaction=False) as pipe:
        pipe.get(keys.generation(fleet))
        pipe.getrange(keys.spec(fleet, number), 0, MARK_CHARS - 1)
        current, head = await pipe.execute()
    return f"{current or 0} {head}"


async def generation_mark(r: Client, keys: Keys, fleet: str, number: int) -> str:
    """As `spec_mark`, of the generation and the members of its pools: with a third answer, the mark of the members."""
    async with r.pipeline(transaction=False) as pipe:
        pipe.get(keys.generation(fleet))
        pipe.getrange(keys.spec(fleet, number), 0, MARK_CHARS - 1)
        pipe.getrange(keys.members_mark(fleet), 0, MARK_CHARS - 1)
        current, head, members = await pipe.execute()
    return f"{current or 0} {head} {members}"


async def read_numbered(r: Client, keys: Keys, fleet: str, number: int, seal: Seal | None = None) -> Generation | None:
    """Generation `number`; None when it is not kept. `seal` as for `read_generation`."""
    key = keys.spec(fleet, number)
    text = await r.getrange(key, 0, MAX_FLEET_BYTES)
    return _opened(text, key, number, fleet, seal) if text else None


def _opened(text: str | bytes, key: str, number: int, fleet: str, seal: Seal | None) -> Generation:
    if seal is None:
        return decode(text, key)
    found = decode(seal.opened(for_generation(fleet), text, key), key)
    if found.number != number:
        raise Forged(f"{key} holds generation {found.number}, put there by somebody else")
    return found


def decode(text: str | bytes, where: str) -> Generation:
    """The generation in `text`. Raises EmpError, naming `where`, for one that does not hold together."""
    try:
        generation = _decode(text)
        fleet = generation.fleet
        if missing := {s for m in fleet.machines for s in m.services}.difference(fleet.services):
            raise msgspec.ValidationError(f"it has no service {min(missing)}")
    except DAMAGED as e:
        raise Damaged(f"{where} is damaged: {e}", hint="run `emp apply` again") from e
    return generation


async def publish(r: Client, keys: Keys, generation: Generation, seal: Seal) -> bool:
    """Make `generation` the current one, if its number follows the current number."""
    name = generation.fleet.name
    publish_it = r.register_script(_PUBLISH)
    number = generation.number
    return bool(
        await publish_it(
            keys=[keys.generation(name), keys.spec(name, number), keys.spec(name, number - KEPT)],
            args=[number, seal.sealed(for_generation(name), msgspec.json.encode(generation))],
        )
    )


async def list_generations(
    r: Client,
    keys: Keys,
    fleet: str,
    limit: int = KEPT,
    seal: Seal | None = None,
    *,
    damaged: list[str] | None = None,
) -> list[Generation]:
    """Those still kept, newest first, `limit` at most. With `seal` only those that bear it. Raises Damaged, unless
    words are to go to `damaged`."""
    number = await current_number(r, keys, fleet)
    numbers = range(number, max(0, number - min(limit, KEPT)), -1)
    if not numbers:
        return []
    texts = await r.mget([keys.spec(fleet, n) for n in numbers])
    found = []
    for n, text in zip(numbers, texts, strict=True):
        try:
            found += [] if text is None else [_opened(text, keys.spec(fleet, n), n, fleet, seal)]
        except Forged:
            continue
        except Damaged as e:
            if damaged is None:
                raise
            damaged.append(e.message)
    return found


def with_changes(kept: Sequence[Generation]) -> list[tuple[Generation, tuple[str, ...]]]:
    """Each of `kept`, newest first, with what it changed; nothing is said where the one before is not kept.

    `~ worker package`: an emp of another version applied it.
    """
    told: list[tuple[Generation, tuple[str, ...]]] = []
    for generation, before in zip(kept, [*kept[1:], None][: len(kept)], strict=True):
        follows = before is not None and before.number == generation.number - 1
        known = follows or generation.number == 1
        found = changed(before.fleet if before and follows else None, generation.fleet) if known else ()
        if before is not None and follows and before.package != generation.package and PACKAGE_PINNED not in found:
            found = (*found, "~ worker package")
        told.append((generation, found))
    return told


async def restore(r: Client, keys: Keys, generation: Generation, seal: Seal) -> None:
    """Put a generation back into a Redis that lost it, under its own number."""
    await restore_all(r, keys, [generation], seal)


async def restore_all(r: Client, keys: Keys, kept: Sequence[Generation], seal: Seal) -> None:
    """Put generations of one fleet in their places, under their own numbers; the first, the newest, is in force."""
    name = kept[0].fleet.name
    async with r.pipeline(transaction=True) as pipe:
        for one in kept:
            pipe.set(keys.spec(name, one.number), seal.sealed(for_generation(name), msgspec.json.encode(one)))
        pipe.set(keys.generation(name), kept[0].number)
        await pipe.execute()
