"""Checks of Redis: reachable from here and from the machines, safe for jobs, with somebody who listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from emp_orch.control.checks.redis_fitness import connections
from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem, known, revive
from emp_orch.control.upkeep.replicas import replicas_in
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.status import MORE_REPLICAS, NO_EVICTION, evicting, follow, too_few
from emp_orch.store.redis.client import redacted

MIN_VERSION = (6, 2)
CLOCK_MS = 2_000
SLOW_MS = 100.0
FULL = 0.9


def _reachable(facts: Facts) -> Iterator[Problem]:
    settings = known(facts.redis_settings)
    if isinstance(facts.redis, Unknown):
        fix = revive(facts, "redis") if settings.embedded else facts.redis.hint or "is it up, and is redis.url right?"
        yield Problem(what=facts.redis.reason, fix=fix, where=redacted(settings.redis_url))
    elif facts.redis.refuses is not None:
        refusal = facts.redis.refuses
        yield Problem(what=f"Redis {refusal.says}", fix=refusal.hint, where=redacted(settings.redis_url))
    elif facts.redis.round_trip_ms > SLOW_MS:
        yield Problem(
            what=f"Redis is slow: {facts.redis.round_trip_ms:.0f} ms for one answer",
            fix="look at its load and at the network",
            where=redacted(settings.redis_url),
            level=Level.WARN,
        )


def _from_machines(facts: Facts) -> Iterator[Problem]:
    """The URL that machines are given leads to the same Redis."""
    settings = known(facts.settings)
    where = redacted(settings.machine_redis_url)
    if settings.machine_redis_url == settings.redis_url:
        known(facts.redis)
    if isinstance(facts.machine_redis, Unknown):
        yield Problem(
            what=f"machines are told to use this Redis, and it does not answer: {facts.machine_redis.reason}",
            fix="correct redis.machine_url in emp.yaml, then emp down and emp apply",
            where=where,
        )
    elif facts.machine_redis != known(facts.redis).run_id:
        yield Problem(
            what="machines report to another Redis than the control plane reads: they will never be seen",
            fix="make redis.machine_url lead to the same Redis as redis.url, then emp down and emp apply",
            where=where,
        )


def _version(facts: Facts) -> Iterator[Problem]:
    redis = known(facts.redis)
    if not redis.info:
        yield Problem(
            what="the user in redis.url may not run INFO: version, memory and persistence cannot be judged",
            fix="grant it +info, or see to them yourself: docs/redis.md",
            level=Level.WARN,
        )
        return
    text = str(redis.info.get("redis_version", "0"))
    parts = tuple(int(p) for p in text.split(".")[:2] if p.isdigit())
    if parts < MIN_VERSION:
        yield Problem(what=f"Redis {text} is too old, 6.2 is needed", fix="upgrade Redis, or use redis.url: embedded")


def _rights(facts: Facts) -> Iterator[Problem]:
    if facts.rights is not None and (lacks := known(facts.rights)).words:
        yield Problem(
            what=f"the user in redis.url may not {lacks.words} (NOPERM)",
            fix=lacks.way_out,
            where=redacted(known(facts.redis_settings).redis_url),
        )


def _fine_rights(facts: Facts) -> str:
    if facts.rights is None:
        return ""
    shared = known(facts.rights).shared
    return f"its user may do all that emp does{f'; machines {shared}' if shared else ''}"


def _scripts(facts: Facts) -> Iterator[Problem]:
    """Machines need no scripts of their own: those of the package that they run are known."""
    generation = facts.generation
    if generation is None or isinstance(generation, Unknown) or isinstance(facts.settings, Unknown):
        return
    package = generation.package
    if package is None or package.digest not in facts.scripted:
        of = package.short if package else "of an older emp"
        yield Problem(
            what="machines may send scripts of their own to Redis, and one that loops stops it for all: what the "
            f"worker package {of} sends is not known here",
            fix="`emp apply` with this emp, without worker_package; or first with the emp that made it, in this folder",
            level=Level.WARN,
        )


def _fine_scripts(facts: Facts) -> str:
    return (
        "the scripts of the worker package are known: the fleet loads them for machines"
        if isinstance(facts.generation, Generation)
        else ""
    )


def _persistence(facts: Facts) -> Iterator[Problem]:
    info = known(facts.redis).info
    if not info:
        return
    if info.get("loading"):
        yield Problem(what="Redis is still loading its data", fix="wait; emp logs redis", level=Level.WARN)
    if info.get("aof_enabled"):
        for key, what in (("aof_last_write_status", "write"), ("aof_last_bgrewrite_status", "rewrite")):
            if info.get(key, "ok") != "ok":
                yield Problem(
                    what=f"the last {what} of Redis' append-only file failed: jobs may be lost",
                    fix="look at the free space and the permissions of its folder; emp logs redis",
                )
    elif info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield Problem(what="Redis' last snapshot failed: jobs may be lost", fix="look into the log of your Redis")
    else:
        yield Problem(
            what="Redis has no append-only file: a crash loses what came after its last snapshot",
            fix="set appendonly yes in its configuration",
            level=Level.WARN,
        )


def _memory(facts: Facts) -> Iterator[Problem]:
    info = known(facts.redis).info
    limit, used, policy = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0)), info.get("maxmemory_policy")
    if limit and policy != "noeviction":
        yield Problem(what=evicting(str(policy), int(info.get("evicted_keys", 0))), fix=NO_EVICTION)
    if limit and used > FULL * limit:
        yield Problem(
            what=f"Redis uses {100 * used // limit} % of its memory ({limit // 1024**2} MiB)",
            fix="raise maxmemory; look at `emp jobs`",
            level=Level.FAIL if used >= limit else Level.WARN,
        )


def _replicas(facts: Facts) -> Iterator[Problem]:
    yield from missing_replicas(known(facts.redis).info, known(facts.redis_settings).replicas)


def missing_replicas(info: dict[str, Any], wanted: int) -> Iterator[Problem]:
    """`info` is INFO, empty where that is not allowed."""
    if not info or not wanted:
        return
    found = replicas_in(info)
    if found.following < wanted:
        yield Problem(what=too_few(found.following, wanted), fix=MORE_REPLICAS)
    elif not found.refuses_alone:
        yield Problem(
            what="Redis takes writes also without its replicas: a primary that lost them goes on, and that is lost",
            fix=f"set min-replicas-to-write {wanted} on it and on its replicas",
            level=Level.WARN,
        )


def _fine_replicas(facts: Facts) -> str:
    info = known(facts.redis).info
    if not info:
        return ""
    following = replicas_in(info).following
    return f"{follow(following)} it" if following else ""


def _connections(facts: Facts) -> Iterator[Problem]:
    info = known(facts.redis).info
    most, now = int(info.get("maxclients", 0)), int(info.get("connected_clients", 0))
    need = connections(facts.fleet) if isinstance(facts.fleet, Fleet) else 0
    if most and need > most:
        yield Problem(
            what=f"this fleet has up to {need} connections to Redis, which takes {most} (maxclients)",
            fix="raise maxclients there, or have fewer machines or GPU slots",
        )
    elif most and now > FULL * most:
        yield Problem(
            what=f"Redis has {now} of at most {most} connections (maxclients): the next ones are refused",
            fix="raise maxclients, or end other clients; docs/redis.md says how many emp needs",
            level=Level.WARN,
        )


def _fine_connections(facts: Facts) -> str:
    info = known(facts.redis).info
    ours = f"; this fleet has up to {connections(facts.fleet)}" if isinstance(facts.fleet, Fleet) else ""
    return f"{info.get('connected_clients', '?')} of {info.get('maxclients', '?')} connections are in use{ours}"


def _contents(facts: Facts) -> Iterator[Problem]:
    """Types, last ids of streams, numbers, sizes, the lease's end."""
    for one in known(facts.redis).damaged:
        yield Problem(
            what=f"the key {one.key!r} holds {one.found} where emp keeps {one.expected}: somebody else wrote it",
            fix="emp doctor --repair puts it aside for a week, and emp goes on",
            where=one.key,
        )


def _clock(facts: Facts) -> Iterator[Problem]:
    offset_ms = known(facts.redis).offset_ms
    if abs(offset_ms) > CLOCK_MS:
        word = "ahead of" if offset_ms > 0 else "behind"
        yield Problem(
            what=f"the clock of Redis is {abs(offset_ms) / 1000:.1f} s {word} this host's: times in logs do not match",
            fix="let NTP set both clocks; emp itself judges by Redis' clock only",
            level=Level.WARN,
        )


def _subscribers(facts: Facts) -> Iterator[Problem]:
    known(facts.settings)
    if known(facts.redis).subscribers < 1:
        yield Problem(
            what="nobody is subscribed to machine:startup:events",
            fix=f"the API subscribes to it: {revive(facts, 'api')}",
            where="machine:startup:events",
        )


def _fine_reachable(facts: Facts) -> str:
    redis = known(facts.redis)
    name = "Valkey" if "valkey_version" in redis.info else "Redis"
    version = redis.info.get("valkey_version") or redis.info.get("redis_version")
    return f"{name} {version} answers in {redis.round_trip_ms:.1f} ms"


def _fine_subscribers(facts: Facts) -> str:
    return f"machine:startup:events has a subscriber ({known(facts.redis).subscribers})"


CHECKS = (
    Check(name="redis", group=Group.REDIS, fine=_fine_reachable, find=_reachable),
    Check(
        name="redis-from-machines",
        group=Group.REDIS,
        fine=lambda f: f"machines reach the same Redis by {redacted(known(f.settings).machine_redis_url)}",
        find=_from_machines,
    ),
    Check(
        name="redis-version",
        group=Group.REDIS,
        fine=lambda f: f"it speaks as Redis {known(f.redis).info.get('redis_version')}, 6.2 is needed",
        find=_version,
    ),
    Check(name="rights", group=Group.REDIS, fine=_fine_rights, find=_rights),
    Check(name="scripts", group=Group.REDIS, fine=_fine_scripts, find=_scripts),
    Check(name="persistence", group=Group.REDIS, fine=lambda _: "its append-only file is written", find=_persistence),
    Check(name="memory", group=Group.REDIS, fine=lambda _: "it never evicts, and has memory left", find=_memory),
    Check(name="replicas", group=Group.REDIS, fine=_fine_replicas, find=_replicas),
    Check(name="connections", group=Group.REDIS, fine=_fine_connections, find=_connections),
    Check(name="contents", group=Group.REDIS, fine=lambda _: "its keys hold what emp keeps there", find=_contents),
    Check(
        name="clock",
        group=Group.REDIS,
        fine=lambda f: f"its clock differs from ours by {abs(known(f.redis).offset_ms)} ms",
        find=_clock,
    ),
    Check(name="subscribers", group=Group.REDIS, fine=_fine_subscribers, find=_subscribers),
)
