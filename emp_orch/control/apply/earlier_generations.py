"""Proposals that come from generations instead of emp.yaml: one of before, the one in force with other slots, or just
the one in force.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import structs

from emp_orch import manifest
from emp_orch import settings as settings_files
from emp_orch.control.apply.proposal import propose
from emp_orch.control.checks.host_gpus import refuse_other_gpus
from emp_orch.control.checks.proposed import Proposal
from emp_orch.control.host import generation as generations
from emp_orch.control.plane.container_plane import plane_of
from emp_orch.errors import EmpError, Unreachable, UsageError
from emp_orch.fleet.model.fleet import EMBEDDED, Fleet, Machine
from emp_orch.fleet.plan.changes import changed
from emp_orch.layout import Layout
from emp_orch.manifest.checks.ports import conflicts
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import Settings
from emp_orch.store.fleet.generations import KEPT, Generation, read_generation, read_numbered
from emp_orch.store.redis import client
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


@asynccontextmanager
async def reading(layout: Layout) -> AsyncIterator[tuple[Settings, Client]]:
    """The fleet in `layout`, through a client that cannot write. Raises Unreachable, saying so when it is down."""
    settings = settings_files.load(layout)
    try:
        async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
            yield settings, r
    except Unreachable as e:
        if settings.embedded and plane_of(layout).identity() is None:
            raise Unreachable(f"fleet {settings.fleet} is down, and its Redis with it", hint="run `emp start`") from e
        raise


async def rolled_back(layout: Layout, number: int | None, environ: Mapping[str, str]) -> Proposal:
    """Generation `number` proposed again; None: the one before the one in force. Redis stays where it is.

    Raises UsageError when it is not kept, and for a secret that has no value any more.
    """
    async with reading(layout) as (settings, r):
        current = await _current(layout, settings, r)
        wanted = current.number - 1 if number is None else number
        if wanted == 0 and number is None:
            raise UsageError(f"generation {current.number} is the first: there is none before it")
        found = current if wanted == current.number else None
        seal = SigningKey(layout, settings.fleet).known()
        found = found or await read_numbered(r, Keys(settings.prefix), settings.fleet, wanted, seal)
    if found is None:
        raise UsageError(f"generation {wanted} is not kept", hint="`emp history` lists those that are")
    fleet = structs.replace(found.fleet, redis=current.fleet.redis)
    return _propose(
        fleet, layout, settings, environ, current, source=f"generation {wanted}", why=f"rollback to {wanted}"
    )


async def scaled(layout: Layout, name: str, slots: int, environ: Mapping[str, str]) -> tuple[Proposal, Generation]:
    """The generation in force with `slots` GPU slots on machine `name`, or on each of the replicas of that name; and
    the one in force as it is.

    Raises UsageError for an unknown machine, and for what its services or GPUs do not allow.
    """
    async with reading(layout) as (settings, r):
        current = await _current(layout, settings, r)
    chosen = {m.id for m in _named(current.fleet, name)}
    machines = tuple(structs.replace(m, num_gpus=slots) if m.id in chosen else m for m in current.fleet.machines)
    fleet = structs.replace(current.fleet, machines=machines)
    for machine in machines:
        if machine.id in chosen and machine.gpus.ids and len(machine.gpus.ids) != slots:
            raise UsageError(
                f"machine {machine.id}: gpus.ids has {len(machine.gpus.ids)}, one for each slot; that is not {slots}",
                hint=f"change gpus and num_gpus together in emp.yaml ({machine.origin}), then `emp apply`",
            )
    proposal = _propose(fleet, layout, settings, environ, current, source="emp.yaml", why=f"scale {name}={slots}")
    if found := list(conflicts(proposal.fleet, {m.id: m.id for m in machines})):
        raise UsageError("\n".join(c.text for c in found), hint="take fewer slots, or other ports in emp.yaml")
    return proposal, current


async def generation_in_force(layout: Layout, environ: Mapping[str, str]) -> tuple[Proposal, Generation]:
    """The generation in force proposed as it is, with the package that it names: to be brought up, not published.

    Raises UsageError when nothing was ever applied here, for a secret that has no value any more and where this shell
    was given other GPUs, Unreachable when a Redis that is not ours is away, EmpError when that holds a generation that
    is not of this folder.
    """
    settings = settings_files.load(layout)
    current = await _in_redis_or_kept(layout, settings)
    if current is None or current.fleet.name != settings.fleet:
        raise EmpError(f"fleet {settings.fleet} has no generation yet", hint="run `emp apply`")
    why = f"start of {current.number}"
    proposal = _propose(
        current.fleet, layout, settings, environ, current, source=f"generation {current.number}", why=why
    )
    given = current.fleet.allotment
    refuse_other_gpus(given, _environment(layout, environ))
    fleet = structs.replace(proposal.fleet, allotment=given)
    return structs.replace(proposal, fleet=fleet, package=current.package or proposal.package), current


async def _in_redis_or_kept(layout: Layout, settings: Settings) -> Generation | None:
    """The embedded Redis is down with the fleet, and the file on disk says what it will say."""
    kept = generations.kept(layout)
    keys, fleet = Keys(settings.prefix), settings.fleet
    try:
        async with client.connected(settings.redis_url, owner=settings.redis_owner, read_only=True) as r:
            found = await read_generation(r, keys, fleet)
            if found is not None and kept is not None and not settings.embedded:
                now = found if found.number == kept.number else await read_numbered(r, keys, fleet, kept.number)
                refuse_others(found, kept, now, client.address(settings.redis_url))
            if found is not None:
                found = await generations.in_force(r, keys, layout, fleet)
    except Unreachable:
        if not settings.embedded:
            raise
        return kept
    return found or kept


def refuse_others(found: Generation, kept: Generation, now: Generation | None, redis: str) -> None:
    """`found` is in force, `kept` was when this folder last looked, `now` is what Redis has under that number.

    Raises EmpError unless the one followed from the other.
    """
    if now is None:
        follows = found.number - kept.number >= KEPT
    else:
        follows = found.number >= kept.number and (now.at_ms, now.digest) == (kept.at_ms, kept.digest)
    if not follows:
        raise EmpError(
            f"Redis at {redis} has generation {found.number} of a fleet {found.fleet.name} that is not this folder's, "
            f"which was at {kept.number}",
            hint="give this fleet another name or redis.prefix in emp.yaml and run `emp apply`; after a restore of an "
            "older Redis `emp apply` alone publishes what emp.yaml says",
        )


async def in_force(layout: Layout) -> Generation:
    """The generation in force. Raises Unreachable, or EmpError when there is none."""
    async with reading(layout) as (settings, r):
        return await _current(layout, settings, r)


async def _current(layout: Layout, settings: Settings, r: Client) -> Generation:
    """The one on disk stands in for one that Redis lost, as for the reconciler."""
    found = await generations.in_force(r, Keys(settings.prefix), layout, settings.fleet)
    if found is None or found.fleet.name != settings.fleet:
        raise EmpError(f"fleet {settings.fleet} has no generation yet", hint="run `emp apply`")
    return found


def _propose(
    fleet: Fleet,
    layout: Layout,
    settings: Settings,
    environ: Mapping[str, str],
    current: Generation,
    *,
    source: str,
    why: str,
) -> Proposal:
    """`fleet` as it is stored, with the Redis that is in use: a stored generation does not say where that is."""
    machine_url = "" if settings.machine_redis_url == settings.redis_url else settings.machine_redis_url
    redis = structs.replace(
        fleet.redis,
        url=EMBEDDED if settings.embedded else settings.redis_url,
        port=settings.redis_port,
        prefix=settings.prefix,
        machine_url=machine_url,
    )
    return propose(
        structs.replace(fleet, redis=redis),
        layout,
        _environment(layout, environ),
        source=source,
        why=why,
        base=current.number,
        held=settings_files.held_secrets(layout),
    )


def _environment(layout: Layout, environ: Mapping[str, str]) -> dict[str, str]:
    """Where secrets are looked up first. A broken .env is no obstacle: a rollback may well be the answer to it."""
    try:
        return manifest.environment(layout.root / "emp.yaml", environ)
    except manifest.ConfigError:
        return dict(environ)


def _named(fleet: Fleet, name: str) -> list[Machine]:
    """The machine `name`, or the replicas of the entry that is called so: they stand in one place."""
    one = [m for m in fleet.machines if m.id == name]
    replicas = [m for m in fleet.machines if re.fullmatch(re.escape(name) + r"-[1-9][0-9]*", m.id)]
    if one or (replicas and len({m.origin for m in replicas}) == 1):
        return one or replicas
    known = [*(m.id for m in fleet.machines), *fleet.pools]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known[:12]) or 'none'}"
    raise UsageError(f"the fleet has no machine{' and no pool' if fleet.pools else ''} {name!r}", hint=hint)


def file_of(fleet: Fleet) -> str:
    """The name of the file that `fleet` was read from."""
    origins = [*(m.origin for m in fleet.machines), *(s.origin for s in fleet.services.values())]
    return next((Path(o.rsplit(":", 2)[0]).name for o in origins if o.count(":") >= 2), "emp.yaml")


def still_says(layout: Layout, fleet: Fleet, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What the next `emp apply` would change against `fleet`; empty when emp.yaml says the same."""
    path = layout.root / file_of(fleet)
    try:
        wanted = structs.replace(manifest.load(path, environ), allotment=fleet.allotment, images=fleet.images)
    except manifest.ConfigError as e:
        count = len(e.problems)
        return (f"it has {count} problem{'' if count == 1 else 's'} now: emp validate",)
    if generations.digest(wanted) == generations.digest(fleet):
        return ()
    return changed(fleet, wanted) or ("~ redis",)
