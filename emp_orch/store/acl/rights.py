"""Whether a login may do all that emp does: each command, every key, every channel. Tried without doing anything.

Redis looks at the rights of a command when it is queued in a transaction. So everything is queued, with the keys that
emp really uses, and the transaction is discarded: also where `ACL DRYRUN` is too new, or not allowed itself.
Source: https://redis.io/docs/latest/develop/interact/transactions/, as of Redis 6.2.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from redis import exceptions as rexc
from redis.asyncio.connection import AbstractConnection

from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.refusals import Refusal, refusal_of
from emp_orch.urls import user_of

# All that emp sends and that its scripts do, but for what it can go without. K stands for a key, C for a channel.
COMMANDS = """
PING | SELECT 0 | TIME | EVAL x 0 | EVALSHA x 0 | SCRIPT LOAD x
EXISTS K | TYPE K | RENAME K K | EXPIRE K 1 | DEL K | UNLINK K
STRLEN K | GET K | GETRANGE K 0 0 | MGET K | SET K x | INCR K | INCRBY K 1 | PEXPIRE K 1
PTTL K | SCAN 0
HGET K x | HGETALL K | HKEYS K | HLEN K | HMGET K x | HSCAN K 0 | HSET K x x | HSETNX K x x | HDEL K x
HEXISTS K x | HSTRLEN K x
LPUSH K x | RPUSH K x | BLPOP K 1 | LLEN K | LRANGE K 0 0 | LREM K 0 x
SADD K x | SREM K x | SCARD K | SINTER K | SMEMBERS K | SMISMEMBER K x | SRANDMEMBER K
ZADD K 1 x | ZREM K x | ZSCORE K x | ZMSCORE K x | ZCARD K | ZRANGE K 0 0 | ZRANGEBYSCORE K 0 0 | ZREVRANGE K 0 0
ZREVRANGEBYSCORE K 0 0 | ZPOPMIN K | ZREMRANGEBYRANK K 0 0 | ZREMRANGEBYSCORE K 0 0
XADD K * x x | XDEL K 0 | XRANGE K - + | XREAD STREAMS K 0 | XREVRANGE K + - | XLEN K | XINFO STREAM K
PUBLISH C x | SUBSCRIBE C | UNSUBSCRIBE C | PUBSUB NUMSUB C
"""
_SUBCOMMANDS = frozenset({"SCRIPT", "PUBSUB", "ACL", "XINFO"})
# What the transaction itself is made of.
TRANSACTION = ("MULTI", "EXEC", "DISCARD")


class Lacks(Struct, frozen=True, kw_only=True):
    """What a login may not do. `rules` are what `ACL SETUSER` is to be told. `shared`: it is the machines' too, as it
    may not make users for them; that is no fault.
    """

    user: str
    commands: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    shared: str = ""

    @property
    def words(self) -> str:
        """What follows "its user may not"; empty when it may do everything."""
        parts = [("run", self.commands), ("use the keys", self.keys), ("use the channels", self.channels)]
        return ", nor ".join(f"{what} {_some(names)}" for what, names in parts if names)

    @property
    def way_out(self) -> str:
        return f"ACL SETUSER {self.user} {' '.join(self.rules)}; docs/redis.md lists all that emp needs"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def name_of(command: Sequence[str]) -> str:
    """As an ACL names it: `hset`, `script|load`."""
    return "|".join(command[: 2 if command[0] in _SUBCOMMANDS else 1]).lower()


def commands(key: str, channel: str) -> list[list[str]]:
    """Each command that emp needs, with arguments that Redis takes for it."""
    stands_for = {"K": key, "C": channel}
    texts = [one.split() for line in COMMANDS.strip().splitlines() for one in line.split("|")]
    return [[stands_for.get(word, word) for word in words] for words in texts]


def all_keys(keys: Keys) -> list[str]:
    """One key of every family, whose varying part is `x`."""
    return [name for part, name in _names(keys) if not part.endswith("_channel")]


def all_channels(keys: Keys) -> list[str]:
    return [name for part, name in _names(keys) if part.endswith("_channel")]


def _names(keys: Keys) -> list[tuple[str, str]]:
    found = []
    for part, member in inspect.getmembers(Keys):
        if isinstance(member, property):
            found.append((part, str(getattr(keys, part))))
        elif inspect.isfunction(member) and not part.startswith("_"):
            takes = list(inspect.signature(member).parameters.values())[1:]
            found.append((part, str(member(keys, *("1" if p.annotation == "int" else "x" for p in takes)))))
    return found


async def lacking(r: Client, keys: Keys, url: str, *, replicas: int = 0) -> Lacks:
    """What the login of `r` may not do of what emp does; with `replicas` that is WAIT, too. Raises what redis-py raises
    when Redis is away.
    """
    user = user_of(url) or "default"
    every, channels = all_keys(keys), all_channels(keys)
    asked: list[list[str]] = [*commands(keys.probe, channels[0]), *([["WAIT", "0", "1"]] if replicas else [])]
    read = [["GET", key] for key in every]
    written = [["SET", key, "x"] for key in every]
    heard = [["SUBSCRIBE", channel] for channel in channels]
    told = [["PUBLISH", channel, "x"] for channel in channels]
    pool: Any = r.connection_pool
    connection = await pool.get_connection()
    try:
        answers = await _queued(connection, [*asked, *read, *written, *heard, *told])
    finally:
        await connection.disconnect(nowait=True)  # whatever came of it, nothing of it is left
        await pool.release(connection)
    if isinstance(answers, rexc.NoPermissionError):
        return _lacks(user, keys, commands=TRANSACTION)
    of_commands = {name_of(c) for c, a in zip(asked, answers, strict=False) if _forbids(a, "command")}
    rest = list(zip([*read, *written, *heard, *told], answers[len(asked) :], strict=False))
    of_keys = {c[1] for c, a in rest if c[0] in ("GET", "SET") and _forbids(a, "key")}
    of_channels = {c[1] for c, a in rest if c[0] in ("SUBSCRIBE", "PUBLISH") and _forbids(a, "channel")}
    return _lacks(user, keys, commands=sorted(of_commands), keys_=sorted(of_keys), channels=sorted(of_channels))


async def forbidden(r: Client, asked: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Which of the commands our login may not run, as an ACL names them.

    Raises what redis-py raises when Redis is away.
    """
    pool: Any = r.connection_pool
    connection = await pool.get_connection()
    try:
        answers = await _queued(connection, asked)
    finally:
        await connection.disconnect(nowait=True)
        await pool.release(connection)
    if isinstance(answers, rexc.NoPermissionError):
        return TRANSACTION
    return tuple(name_of(c) for c, a in zip(asked, answers, strict=True) if isinstance(a, rexc.ResponseError))


async def refused_write(r: Client, keys: Keys) -> Refusal | None:
    """Why Redis takes no writes, though it answers; None when it does. Nothing is written: it is queued, and discarded.

    Raises what redis-py raises when Redis is away.
    """
    pool: Any = r.connection_pool
    connection = await pool.get_connection()
    try:
        answers = await _queued(connection, [["SET", keys.probe, "x"]])
    finally:
        await connection.disconnect(nowait=True)
        await pool.release(connection)
    said = answers if isinstance(answers, rexc.NoPermissionError) else answers[0]
    return refusal_of(said) if isinstance(said, rexc.ResponseError) else None


def _forbids(answer: Any, what: str) -> bool:
    """Older: "no permissions to run the 'x' command or its subcommand", "… one of the keys used as arguments"."""
    if not isinstance(answer, rexc.NoPermissionError):
        return False
    said = str(answer)
    return what == ("command" if "to run the" in said else "channel" if "channel" in said else "key")


def _lacks(
    user: str, keys: Keys, *, commands: Sequence[str], keys_: Sequence[str] = (), channels: Sequence[str] = ()
) -> Lacks:
    rules = [
        *(f"+{command.lower()}" for command in commands),
        *([f"~{keys.prefix}*"] if keys_ else []),
        *([f"&{keys.prefix}*"] if channels else []),
    ]
    return Lacks(
        user=user,
        commands=tuple(c.upper().replace("|", " ") for c in commands),
        keys=tuple(keys_),
        channels=tuple(channels),
        rules=tuple(rules),
    )


async def _read(connection: Any) -> Any:
    """One answer. Not as the pool reads it, which leaves its connections when a replica refuses a write."""
    return await AbstractConnection.read_response(connection)


async def _queued(connection: Any, asked: Sequence[Sequence[str]]) -> Any:
    """The answer to each command, errors included; the NoPermissionError where there may be no transaction."""
    try:
        for words in (["MULTI"], ["EXEC"], ["MULTI"]):
            await connection.send_command(*words)
            await _read(connection)
        await connection.send_packed_command(connection.pack_commands(asked))
        answers: list[Any] = []
        for _ in asked:
            try:
                answers.append(await _read(connection))
            except rexc.ResponseError as e:
                answers.append(e)
        await connection.send_command("DISCARD")
        await _read(connection)
    except rexc.NoPermissionError as e:
        return e
    return answers
