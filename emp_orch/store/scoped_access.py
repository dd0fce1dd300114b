"""A Redis user for one machine that emp does not run itself: the commands and keys that its agent and workers need.

Not the fleet's own keys (generations, lease, journal), and not another machine's commands: who holds this user's
password can spoil the queue and the reports, but command nobody.
Source: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/, as of Redis 6.2.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote, urlsplit, urlunsplit

from redis import exceptions as rexc

from emp_orch.store.connect import Client
from emp_orch.store.keys import Keys

# All that an agent and a worker send, and what the scripts they run do.
COMMANDS = (
    *("auth", "hello", "ping", "select", "time", "eval", "evalsha", "script|load", "multi", "exec", "discard"),
    *("exists", "del", "unlink", "get", "mget", "set", "incr", "incrby", "pexpire"),
    *("hget", "hgetall", "hkeys", "hmget", "hset", "hsetnx", "hdel", "hexists", "lpush", "rpush", "blpop"),
    *("sadd", "srem", "sinter", "smembers", "smismember", "srandmember"),
    *("zadd", "zrem", "zscore", "zcard", "zrange", "zrangebyscore", "zpopmin", "zremrangebyrank"),
    *("xadd", "xrange", "xread", "xrevrange", "publish", "pubsub|numsub", "client|setname"),
)


def user_of(fleet: str, machine_id: str) -> str:
    """The user's name. Names hold no colon, so no two machines have the same."""
    return f"emp:{fleet}:{machine_id}"


def rules(keys: Keys, machine_id: str, password: str) -> list[str]:
    """What `ACL SETUSER` is told, from nothing on: the same words for the same machine."""
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
        *("reset", "on", f">{password}"),
        *(f"~{pattern}" for pattern in patterns),
        *(f"&{channel}" for channel in (keys.startup_channel, keys.preview_channel("*"))),
        *(f"+{command}" for command in COMMANDS),
    ]


async def grant(r: Client, keys: Keys, fleet: str, machine_id: str, password: str) -> bool:
    """Make the user, or make it anew. False where this Redis, or our own rights there, do not allow that.

    Connections that are open stay so.
    """
    try:
        await _acl(r, "SETUSER", user_of(fleet, machine_id), *rules(keys, machine_id, password))
    except rexc.ResponseError:  # an old Redis, or no right to
        return False
    with suppress(rexc.ResponseError):  # Redis 7.2 has it, and clients say with it who they are
        await _acl(r, "SETUSER", user_of(fleet, machine_id), "+client|setinfo")
    return True


async def renew(r: Client, keys: Keys, fleet: str, machine_id: str, password: str) -> bool:
    """As `grant`, of a user that is there: one that an older emp made may lack what the scripts need now."""
    try:
        there = await r.acl_getuser(user_of(fleet, machine_id))
    except rexc.ResponseError:
        return False
    return bool(there) and await grant(r, keys, fleet, machine_id, password)


async def withdraw(r: Client, fleet: str, machine_id: str) -> None:
    """Remove the user, and with it every connection that it has; nothing where there is none, or no right to."""
    try:
        await _acl(r, "DELUSER", user_of(fleet, machine_id))
    except rexc.ResponseError:
        return


async def _acl(r: Client, *words: str) -> None:
    await r.execute_command("ACL", *words)  # type: ignore[no-untyped-call]


def with_login(url: str, user: str, password: str) -> str:
    """`url` with another login."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{host}"))
