"""Whether a Redis of the user's own can hold a fleet: looked at before the first apply touches anything."""

from __future__ import annotations

from redis import exceptions as rexc

from emp_orch.control.upkeep.evictions import evictions
from emp_orch.control.upkeep.replicas import replicas
from emp_orch.errors import Unreachable, UsageError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.settings import Settings
from emp_orch.store.acl.rights import lacking
from emp_orch.store.redis import client
from emp_orch.store.redis.client import API_CONNECTIONS, CONNECTIONS, RECONCILER_CONNECTIONS, Client
from emp_orch.store.redis.keys import PROBE_MS, Keys

SCAN_COUNT = 10_000
# `emp doctor` asks four things at the same time; every other command has fewer.
COMMAND_CONNECTIONS = 4


def connections(fleet: Fleet) -> int:
    """How many connections a fleet has at most: API, reconciler and one command; two for each machine and worker."""
    programs = [p for machine in desired_machines(fleet).values() for p in machine.programs]
    workers = sum(p.kind is ProgramKind.WORKER for p in programs)
    plane = API_CONNECTIONS + 1 + RECONCILER_CONNECTIONS + COMMAND_CONNECTIONS
    return plane + CONNECTIONS * (len(fleet.machines) + workers)


async def refuse_unfit(
    settings: Settings, fleet: Fleet, *, allow_eviction: bool = False, take_over: bool = False
) -> None:
    """Raises Unreachable when it takes no writes, or not all that emp does; UsageError when it may throw jobs away, has
    too few connections or replicas for this fleet, or holds another one.
    """
    keys = Keys(settings.prefix)
    async with client.connected(settings.redis_url, owner=settings.redis_owner) as r:
        if (lacks := await lacking(r, keys, settings.redis_url, replicas=settings.replicas)).words:
            raise Unreachable(
                f"Redis at {client.redacted(settings.redis_url)} does not let its user {lacks.words} (NOPERM)",
                hint=lacks.way_out,
            )
        await r.set(keys.probe, settings.fleet, px=PROBE_MS)
        need, most = connections(fleet), await _most_connections(r)
        if most and need > most:
            raise UsageError(
                f"this fleet has up to {need} connections to Redis, and {client.redacted(settings.redis_url)} takes "
                f"{most} (maxclients)",
                hint="raise maxclients there, or have fewer machines or GPU slots",
            )
        if not allow_eviction and (policy := (await evictions(r)).policy):
            raise UsageError(
                f"Redis at {client.redacted(settings.redis_url)} throws jobs and reports away when its memory is full "
                f"(maxmemory-policy {policy})",
                hint="set maxmemory-policy noeviction there; --allow-eviction applies all the same",
            )
        await _refuse_alone(r, settings)
        await _refuse_strangers(r, keys, settings, take_over=take_over)


async def _most_connections(r: Client) -> int:
    """How many it takes of all its clients; 0 when it does not tell."""
    try:
        return int((await r.info("clients")).get("maxclients", 0))
    except rexc.NoPermissionError:  # an ACL without INFO
        return 0


async def _refuse_alone(r: Client, settings: Settings) -> None:
    """Where replicas are wanted, they are there. One that goes away later is told of, and stops nothing."""
    found = await replicas(r) if settings.replicas else None
    if found is not None and found.following < settings.replicas:
        raise UsageError(
            f"Redis at {client.redacted(settings.redis_url)} has {found.following} replicas that follow it, and "
            f"redis.replicas wants {settings.replicas}",
            hint="start its replicas and wait until they are in step, or lower redis.replicas",
        )


async def _refuse_strangers(r: Client, keys: Keys, settings: Settings, *, take_over: bool) -> None:
    """Two fleets under the same keys would take each other's reports and jobs for their own."""
    if await r.get(keys.generation(settings.fleet)) is not None:
        return  # ours is here; who came later was refused, or took over
    head, tail = keys.generation("\0").split("\0")
    async for key in r.scan_iter(match=_literal(head) + "*" + tail, count=SCAN_COUNT):
        other = key.removeprefix(head).removesuffix(tail)
        alive = await r.exists(keys.leader(other))
        if take_over and not alive:
            continue
        where = f"{client.redacted(settings.redis_url)}, prefix {settings.prefix!r}"
        raise UsageError(
            f"fleet {other} lives under the same keys ({where}){'' if alive else ', or did: nothing leads it now'}",
            hint="give this one a redis.prefix or another database number of its own"
            + (f"; or end {other} with `emp down`" if alive else "; or --take-over, if that one is gone for good"),
        )


def _literal(text: str) -> str:
    """`text` in a pattern of SCAN."""
    return "".join(f"\\{c}" if c in "*?[]\\^" else c for c in text)
