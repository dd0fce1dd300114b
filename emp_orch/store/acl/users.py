"""A Redis user for one machine: the commands and keys that its agent and workers need.

Not the fleet's own keys (generations, lease, journal), and not another machine's commands: who holds this user's
password can spoil the queue and the reports, but command nobody. Another database than the fleet's is out of its reach
where that is 0, as no command is needed then to choose it.
Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/, as of Redis 6.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis import exceptions as rexc

from emp_orch.redis_users import user_of
from emp_orch.store.acl.rights import forbidden
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

# All that an agent and a worker send, and what the scripts they run do. Those the fleet loads (machine_scripts).
COMMANDS = (
    *("auth", "hello", "ping", "time", "evalsha", "multi", "exec", "discard"),
    *("exists", "del", "unlink", "get", "mget", "set", "incr", "incrby", "pexpire"),
    *("hget", "hgetall", "hkeys", "hmget", "hset", "hsetnx", "hdel", "hexists", "lpush", "rpush", "blpop"),
    *("sadd", "srem", "sinter", "smembers", "smismember", "srandmember"),
    *("zadd", "zrem", "zscore", "zcard", "zrange", "zrangebyscore", "zpopmin", "zremrangebyrank"),
    *("xadd", "xrange", "xread", "xrevrange", "publish", "pubsub|numsub", "client|setname", "wait"),
)
# For those whose scripts nobody here knows.
SENDING = ("eval", "script|load")
# What the fleet's login needs for this.
NEEDED = (("ACL", "SETUSER", "x"), ("ACL", "DELUSER", "x"), ("ACL", "USERS"))
# So many users at once: a thousand of them must not keep Redis from all else.
_AT_ONCE = 50


# So a user begins anew, or keeps nothing but its passwords.
_FROM_NOTHING = ("reset",)
_BUT_PASSWORDS = ("resetkeys", "resetchannels", "-@all")


def rules(keys: Keys, machine_id: str, database: int, *, sends: bool) -> list[str]:
    """What `ACL SETUSER` is told, of a user that may nothing yet: the same words for the same machine. `sends`: scripts
    of its own.
    """
    patterns = [
        *(keys.machines, keys.machines_seen, keys.workers, f"{keys.workers}:*", keys.reports_changed, keys.reports_seq),
        *(keys.commands(machine_id), keys.acks(machine_id), keys.config(machine_id)),
        *(keys.events, keys.jobs, f"{keys.jobs}:*", keys.job("*"), keys.payload("*"), keys.secrets("*")),
        keys.progress("*"),
        *(keys.leases, keys.lanes, f"{keys.lanes}:*", keys.lane("*"), keys.lane_classes("*")),
        *(keys.worker_class("*"), keys.heads("*"), keys.classes, f"{keys.classes}:*", keys.waiting_in("*")),
        *(keys.wake("*"), keys.offers("*"), keys.warm("*")),
    ]
    return [
        "on",
        *(f"~{pattern}" for pattern in patterns),
        *(f"&{channel}" for channel in (keys.startup_channel, keys.preview_channel("*"))),
        *(f"+{command}" for command in (*COMMANDS, *(SENDING if sends else ()))),
        *(["+select"] if database else []),
    ]


async def grant(r: Client, keys: Keys, fleet: str, machine_id: str, password: str, *, sends: bool = False) -> bool:
    """Make the user, or make it anew, with this password alone. False where this Redis, or our own rights there, do not
    allow that. `sends`: it may send scripts of its own, and stop Redis with one.

    Connections that are open stay so.
    """
    return await _grant(r, keys, fleet, {machine_id: (f">{password}",)}, _FROM_NOTHING, sends=sends)


async def grant_all(r: Client, keys: Keys, fleet: str, passwords: Mapping[str, str], *, sends: bool = False) -> bool:
    """As `grant`, for each machine of `passwords`; what another leader, who has another key, let in stays valid."""
    words = {one: (f">{password}",) for one, password in passwords.items()}
    return await _grant(r, keys, fleet, words, _BUT_PASSWORDS, sends=sends)


async def revise(r: Client, keys: Keys, fleet: str, machine_ids: Iterable[str], *, sends: bool) -> bool:
    """As `grant_all`, of users that are there, whatever passwords they have."""
    return await _grant(r, keys, fleet, dict.fromkeys(machine_ids, ()), _BUT_PASSWORDS, sends=sends)


async def _grant(
    r: Client, keys: Keys, fleet: str, words: Mapping[str, Sequence[str]], first: Sequence[str], *, sends: bool
) -> bool:
    """`words`: machine → what is said of its passwords."""
    database = _database(r)
    ids = list(words)
    for i in range(0, len(ids), _AT_ONCE):
        asked: list[Sequence[str]] = []
        for machine_id in ids[i : i + _AT_ONCE]:
            name = user_of(fleet, machine_id, prefix=keys.prefix, database=database)
            allowed = rules(keys, machine_id, database, sends=sends)
            asked.append(("SETUSER", name, *first, *words[machine_id], *allowed))
            asked.append(("SETUSER", name, "+client|setinfo"))  # Redis 7.2 has it: clients say with it who they are
        if any(isinstance(said, rexc.ResponseError) for said in (await _acl(r, asked))[::2]):
            return False  # an old Redis, or no right to
    return True


async def renew(r: Client, keys: Keys, fleet: str, machine_id: str, password: str, *, sends: bool = False) -> bool:
    """As `grant`, of a user that is there: one that an older emp made may lack what the scripts need now."""
    try:
        there = await r.acl_getuser(user_of(fleet, machine_id, prefix=keys.prefix, database=_database(r)))
    except rexc.ResponseError:
        return False
    return bool(there) and await grant(r, keys, fleet, machine_id, password, sends=sends)


async def withdraw(r: Client, keys: Keys, fleet: str, *machine_ids: str) -> None:
    """Remove the users, and with them every connection that they have; nothing where there are none, or no right to."""
    database = _database(r)
    names = [user_of(fleet, one, prefix=keys.prefix, database=database) for one in machine_ids]
    for first in range(0, len(names), _AT_ONCE):
        await _acl(r, [("DELUSER", *names[first : first + _AT_ONCE])])


async def granted(r: Client, keys: Keys, fleet: str) -> frozenset[str] | None:
    """The machines of the fleet that have a user; None where we may not know."""
    (said,) = await _acl(r, [("USERS",)])
    if isinstance(said, rexc.ResponseError):
        return None
    head = user_of(fleet, "", prefix=keys.prefix, database=_database(r))
    return frozenset(name.removeprefix(head) for name in map(str, said) if name.startswith(head))


async def lacking(r: Client) -> tuple[str, ...]:
    """The commands that our login may not run, and would need to give each machine a user of its own."""
    return await forbidden(r, NEEDED)


def shared(lacks: Iterable[str]) -> str:
    """What follows from `lacking`, in words that begin after whose login it is."""
    rights = " ".join(f"+{command}" for command in lacks)
    return f"use the fleet's own login at Redis: {rights} would let emp give each its own (docs/redis.md, Rights)"


async def _acl(r: Client, asked: Iterable[Sequence[str]]) -> list[Any]:
    """The answers, errors of Redis included."""
    pipe = r.pipeline(transaction=False)
    for words in asked:
        pipe.execute_command("ACL", *words)
    answers: list[Any] = await pipe.execute(raise_on_error=False)
    return answers


def _database(r: Client) -> int:
    return int(r.connection_pool.connection_kwargs.get("db") or 0)
