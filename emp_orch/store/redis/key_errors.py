"""Redis clients that say which key a command met of another type than emp's; one that reads past it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.asyncio as aioredis
from redis import exceptions as rexc

from emp_orch.store.redis.damaged import REPAIR, KeyDamaged

log = logging.getLogger(__name__)

# What a reading command answers where there is no such key.
_NOTHING: Mapping[str, Callable[[Sequence[Any]], Any]] = {
    **dict.fromkeys(("GET", "HGET", "ZSCORE", "ZRANK"), lambda _: None),
    **dict.fromkeys(("HLEN", "ZCARD", "SCARD", "LLEN", "XLEN", "STRLEN", "ZCOUNT"), lambda _: 0),
    **dict.fromkeys(("HEXISTS", "SISMEMBER"), lambda _: False),
    **dict.fromkeys(("HGETALL",), lambda _: {}),
    **dict.fromkeys(("SMEMBERS",), lambda _: set()),
    **dict.fromkeys(("HKEYS", "HVALS", "LRANGE", "XRANGE", "XREVRANGE"), lambda _: []),
    **dict.fromkeys(("ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE"), lambda _: []),
    **dict.fromkeys(("HMGET", "ZMSCORE"), lambda args: [None] * _asked(args)),
    "GETRANGE": lambda _: "",
    "HSCAN": lambda _: (0, {}),
}


def _asked(args: Sequence[Any]) -> int:
    """How many fields or members are asked for: redis-py takes them one by one, or as one list."""
    return sum(len(a) if isinstance(a, list | tuple) else 1 for a in args[2:])


# What a command or script says that met something else than emp's: a type, a last id, a text that is no number.
_MET = re.compile(
    "WRONGTYPE|target stream top item|exhausted the last possible ID|not an integer|not a valid float"
    r"|user_script:\d+: (attempt to|bad argument|malformed)"
)
# A server before Redis 7 wraps what a script met in an error of the script's.
_REFUSED = re.compile(
    "The user executing|READONLY|OOM|MISCONF|NOREPLICAS|MASTERDOWN|LOADING|NOPERM|NOAUTH|BUSY|NOSCRIPT|UNKILLABLE"
)


def is_damage(e: BaseException) -> bool:
    """Whether a command failed because of what it met in Redis, and not because that refuses or is away."""
    said = str(e)
    if isinstance(e, KeyDamaged):
        return True
    return isinstance(e, rexc.ResponseError) and bool(_MET.search(said)) and not _REFUSED.search(said)


def named(e: rexc.ResponseError, args: Sequence[Any]) -> rexc.ResponseError:
    """`e`, as KeyDamaged where it is one. `args`: the command that met it."""
    if isinstance(e, KeyDamaged) or not is_damage(e):
        return e
    verb = str(args[0]).upper()
    key = "" if verb.startswith(("EVAL", "FCALL")) or len(args) < 2 else args[1]
    return KeyDamaged(key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key), str(e))


class _NamingPipeline(aioredis.client.Pipeline):
    def raise_first_error(self, commands: Any, response: Any) -> None:
        for (args, _), said in zip(commands, response, strict=False):
            if isinstance(said, rexc.ResponseError) and is_damage(said):
                raise named(said, args) from said
        super().raise_first_error(commands, response)


class NamingRedis(aioredis.Redis):
    """Raises KeyDamaged, which is a ResponseError, for a key of another type."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except rexc.ResponseError as e:
            if (found := named(e, args)) is e:
                raise
            raise found from e

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> aioredis.client.Pipeline:
        return _NamingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _TolerantPipeline(_NamingPipeline):
    def raise_first_error(self, commands: Any, response: Any) -> None:
        for at, ((args, _), said) in enumerate(zip(commands, response, strict=False)):
            if isinstance(said, rexc.ResponseError) and (nothing := _nothing(said, args)) is not None:
                response[at] = nothing[0]
        super().raise_first_error(commands, response)


class TolerantRedis(NamingRedis):
    """What reads a key of another type reads nothing there: one key hides no more than what it held. For those who
    show; nobody who acts on what is missing may have this one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().execute_command(*args, **options)
        except KeyDamaged as e:
            if (nothing := _nothing(e, args)) is None:
                raise
            return nothing[0]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> aioredis.client.Pipeline:
        return _TolerantPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


_told: set[str] = set()
_MOST_TOLD = 1_000


def _nothing(e: rexc.ResponseError, args: Sequence[Any]) -> tuple[Any] | None:
    """In a tuple, what the command would read where there is no key; None where it is to fail."""
    of = _NOTHING.get(str(args[0]).upper())
    found = named(e, args)
    if of is None or not isinstance(found, KeyDamaged):
        return None
    if found.key not in _told and len(_told) < _MOST_TOLD:
        _told.add(found.key)
        log.warning("%s; nothing is read there: %s", found.words, REPAIR)
    return (of(args),)
