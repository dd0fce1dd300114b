"""Generations as the control plane uses them: ready to compare, kept on disk, restored into an emptied Redis."""

from __future__ import annotations

import hashlib
import logging

import msgspec

from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import config_hash, desired_machine
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.fleet.model.limits import limits_of
from emp_orch.host import ownership
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.seals import Forged
from emp_orch.settings import write_private
from emp_orch.store.fleet import generations
from emp_orch.store.fleet.generations import Generation, without_secrets
from emp_orch.store.fleet.pools.retired import members_added
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")


def digest(fleet: Fleet) -> str:
    """What tells two generations apart: all that was asked for; not where it stands, nor which GPUs a host gave, nor
    what its images' names mean.
    """
    bare = without_secrets(fleet)
    machines = tuple(msgspec.structs.replace(m, origin="") for m in bare.machines)
    services = {name: msgspec.structs.replace(s, origin="") for name, s in bare.services.items()}
    unplaced = msgspec.structs.replace(bare, machines=machines, services=services, allotment=None, images=())
    return hashlib.sha256(msgspec.json.encode(unplaced, order="sorted")).hexdigest()[:16]


def as_desired(generation: Generation, *, redis: str = "", like: Desired | None = None) -> Desired:
    """The generation as the pure part compares it. `redis`: where machines of this host find it, `host:port/db`.
    `like`: the same generation with other members; what it has of a machine is not worked out anew.
    """
    fleet, reconcile = generation.fleet, generation.fleet.reconcile
    empty = not (fleet.machines or fleet.pools)
    known, hashes = (like.machines, like.digests) if like is not None else ({}, {})
    machines = {m.id: known.get(m.id) or desired_machine(fleet, m) for m in fleet.machines}
    return Desired(
        generation=generation.number,
        machines=machines,
        digests={i: hashes.get(i) or config_hash(m) for i, m in machines.items()},
        limits=limits_of(reconcile),
        package=generation.package,
        emp=generation.emp,
        redis=redis,
        pools=fleet.pools,
        members={m.id: m for m in fleet.members if m.pool in fleet.pools},
        former={m.id: m for m in fleet.members if m.pool not in fleet.pools},
        stale_after_ms=int(reconcile.stale_after_s * 1000),
        max_unavailable=reconcile.max_unavailable,
        max_unavailable_percent=reconcile.max_unavailable_percent,
        # Pruning never empties a fleet by mistake.
        prune=(generation.prune or reconcile.prune) and (not empty or generation.allow_empty),
    )


def keep(layout: Layout, generation: Generation) -> None:
    """Keep `generation` on disk, so that an emptied Redis can be filled again."""
    write_private(layout.generation, msgspec.json.encode(generation))


def kept(layout: Layout) -> Generation | None:
    """The generation kept on disk; None when none was applied here. Raises ForeignFolder for another user's."""
    try:
        return generations.decode(layout.generation.read_bytes(), str(layout.generation))
    except FileNotFoundError:
        return None
    except PermissionError as e:
        raise ownership.ForeignFolder(layout.root) from e


async def current(
    r: Client, keys: Keys, layout: Layout, fleet: str, *, known: Generation | None = None
) -> Generation | None:
    """As `in_force`, and restored from disk where Redis was emptied, went back, or has one that is not ours. `known` is
    returned when that is still the one.
    """
    if known is not None and known.number == await generations.current_number(r, keys, fleet):
        return known
    found, restores = await _found(r, keys, layout, fleet)
    if found is not None and restores:
        await generations.restore(r, keys, found, SigningKey(layout, fleet).control())
    return found


async def in_force(r: Client, keys: Keys, layout: Layout, fleet: str) -> Generation | None:
    """The newest generation that this fleet published, in Redis or on disk. None when there is none.

    Raises Forged where Redis has one that nobody here published, and there is none on disk.
    """
    return (await _found(r, keys, layout, fleet))[0]


async def with_members(r: Client, keys: Keys, layout: Layout, generation: Generation) -> Generation:
    """`generation` with the members of its pools as they are now, and of those that are no more."""
    return await members_added(r, keys, generation, SigningKey(layout, generation.fleet.name).known())


async def _found(r: Client, keys: Keys, layout: Layout, fleet: str) -> tuple[Generation | None, bool]:
    """As `in_force`, and whether Redis lacks it."""
    on_disk = saved(layout, fleet)
    try:
        # Before the first seal here nothing tells whose it is.
        found = await generations.read_generation(r, keys, fleet, SigningKey(layout, fleet).known())
    except Forged as e:
        if on_disk is None:
            raise Forged(e.message, hint="`emp apply` publishes what emp.yaml says") from e
        log.warning("%s; going by generation %d, which was applied here", e.message, on_disk.number)
        found = None
    if found is not None and (on_disk is None or found.number >= on_disk.number):
        return found, False
    return on_disk, on_disk is not None


def saved(layout: Layout, fleet: str) -> Generation | None:
    """What is kept on disk of `fleet`. A damaged file counts as none: Redis has it, and an apply writes it anew."""
    try:
        found = kept(layout)
    except ownership.ForeignFolder:
        raise
    except EmpError as e:
        log.warning("%s; going on without it", e.message)
        return None
    return found if found is not None and found.fleet.name == fleet else None


async def publish_again(r: Client, keys: Keys, layout: Layout, fleet: str, number: int, why: str) -> int:
    """Publish generation `number` as a new one; its number.

    Raises EmpError when it is not kept, or another was published meanwhile.
    """
    seal = SigningKey(layout, fleet).control()
    kept_ones = await generations.list_generations(r, keys, fleet, seal=seal)
    old = next((g for g in kept_ones if g.number == number), None)
    if old is None:
        raise EmpError(f"generation {number} is not kept any more")
    now_ms = await time_ms(r)
    # What it was applied with then is not here any more.
    fleet_then = msgspec.structs.replace(old.fleet, allotment=kept_ones[0].fleet.allotment)
    new = msgspec.structs.replace(
        old,
        fleet=fleet_then,
        emp=kept_ones[0].emp,
        number=kept_ones[0].number + 1,
        at_ms=now_ms,
        prune=False,
        by="reconciler",
        why=f"back to {number}: {why}",
    )
    if not await generations.publish(r, keys, new, seal):
        raise EmpError("somebody published another generation meanwhile")
    keep(layout, new)
    return new.number
