"""Redis clients: one place that builds them, names an unreachable Redis, and can refuse to write."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import redis.asyncio as aioredis
from redis import exceptions as rexc
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from emp_orch.errors import EmpError, Unreachable
from emp_orch.settings import REDIS_OWNER
from emp_orch.store.redis.key_errors import NamingRedis, TolerantRedis
from emp_orch.store.redis.pool import Pool
from emp_orch.store.redis.reachability import on_the_way
from emp_orch.store.redis.refusals import refusal_of
from emp_orch.store.redis.sentinel import Primary
from emp_orch.urls import ENCODED, login_is_cut, sentinel_url

Client = aioredis.Redis

CONNECT_TIMEOUT_S = 3.0
# Of one client, unless it says otherwise: one that blocks, one for the rest.
CONNECTIONS = 2
# Of the API's: one follows the events, one the startup channel, one hears previews, the others are for requests. Orders
# go over one more.
API_CONNECTIONS = 7
# Of the reconciler's: one follows the events, one a drain; rounds, lease and watch share the third.
RECONCILER_CONNECTIONS = 3
# As CLIENT LIST shows who says nothing else.
COMMAND = "emp:command"
# A command may only read, and so never hear that a moved address has left it with a former primary.
COMMAND_AGE_S = 15.0
# A command that may not block is given up after this; `within` says so in code.
ANSWER_S = 10.0
# A peer that is gone without a word is found out by the kernel within about 15 s, also in a blocking read.
_KEEPALIVE = {
    socket.TCP_KEEPIDLE: 5,
    socket.TCP_KEEPINTVL: 3,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,
}
_ALIVE: dict[str, Any] = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}

# What a command needs to be told apart from a write: the reading half of what emp sends.
READ_COMMANDS = frozenset(
    {
        *("AUTH", "CLIENT", "DBSIZE", "ECHO", "HELLO", "INFO", "PING", "PUBSUB", "READONLY", "SELECT", "TIME"),
        *("EXISTS", "GET", "GETRANGE", "MGET", "PTTL", "STRLEN", "TTL", "TYPE"),
        *("HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSCAN", "HVALS"),
        *("LLEN", "LRANGE", "SCARD", "SISMEMBER", "SMEMBERS"),
        *("XINFO", "XLEN", "XRANGE", "XREAD", "XREVRANGE"),
        *("ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE"),
    }
)


def redacted(url: str) -> str:
    """Where `url` leads, fit for logs and errors: put together from its parts, never copied."""
    try:
        if (asked := sentinel_url(url)) is not None:
            return asked.shown
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "the given Redis URL"
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return f"unix://{parts.path}"
    if not parts.scheme or not host or login_is_cut(url):
        return "the given Redis URL"
    address = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{address}{f':{port}' if port else ''}{parts.path}"


def address(url: str) -> str:
    """Where a client of `url` connects to, `host:port/db`, without any login; empty when it is not a Redis URL.

    Of sentinels the order says nothing: it is the same Redis.
    """
    try:
        if (asked := sentinel_url(url)) is not None:
            return f"sentinel:{','.join(sorted(map(str, asked.sentinels)))}/{asked.name}/{asked.database}"
        options = parse_url(url)
    except ValueError:
        return ""
    if "path" in options:
        return f"unix:{options['path']}/{options.get('db', 0)}"
    host = str(options.get("host", "localhost"))
    return f"{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}/{options.get('db', 0)}"


class WriteRefused(EmpError):
    """A command that could write was sent through a read-only client."""


def _check_reads(name: str) -> None:
    verb = name.split()[0].upper()
    if verb not in READ_COMMANDS:
        raise WriteRefused(f"{verb} was refused: this client only reads")


class _ReadOnlyPipeline(aioredis.client.Pipeline):
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        _check_reads(str(args[0]))
        return super().execute_command(*args, **kwargs)


class ReadOnlyRedis(NamingRedis):
    """A client that cannot write: `emp diff`, `status` and `doctor` hold this one."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        _check_reads(str(args[0]))
        return await super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _ReadOnlyPipeline:
        return _ReadOnlyPipeline(self.connection_pool, self.response_callbacks, False, shard_hint)


def client(
    url: str,
    *,
    read_only: bool = False,
    most: int = CONNECTIONS,
    name: str = COMMAND,
    tolerant: bool = False,
    owner: int | None = None,
) -> Client:
    """A client for `url` of at most `most` connections, which CLIENT LIST shows as `name`; nothing is sent yet. No read
    times out by itself: callers set their own deadlines. `tolerant`: a TolerantRedis. `owner`: the user whose server it
    must be, where that is on loopback; any other is told no login.

    With a socket_timeout redis-py sends through asyncio.wait_for, which before Python 3.12 swallows a
    cancellation that comes at the wrong moment; a task blocked in BLPOP then outlives its cancellation.
    """
    cls = ReadOnlyRedis if read_only else TolerantRedis if tolerant else NamingRedis
    try:
        asked = sentinel_url(url)
        pool = Pool.from_url(
            asked.server if asked else url,
            max_connections=most,
            shown_as=name,
            owner=owner,
            primary=Primary(asked) if asked else None,
            age_s=COMMAND_AGE_S if name == COMMAND else float("inf"),
            decode_responses=True,
            encoding_errors="replace",  # one document that is not UTF-8 must not blind us to the others
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),  # who loops decides when to try again, and says so
            **({} if url.startswith("unix:") else _ALIVE),
        )
        pool.make_connection()  # or who connects first hears of an option that there is not
    except (ValueError, TypeError) as e:
        raise _no_url(url, e) from e
    made: Client = cls.from_pool(pool)
    return made


def told_owner() -> int | None:
    """The user whose server a machine's programs must find on loopback, as who started the machine said."""
    said = os.environ.get(REDIS_OWNER, "")
    return int(said) if said.isdecimal() else None


def within(seconds: float = ANSWER_S) -> asyncio.Timeout:
    """A deadline for commands that do not block; passing it is a TimeoutError, one of TRANSIENT."""
    return asyncio.timeout(seconds)


def blocking(block_ms: float) -> asyncio.Timeout:
    """A deadline for a command that waits up to `block_ms` at the server: one that hangs holds its connection."""
    return asyncio.timeout(block_ms / 1000 + ANSWER_S)


def _no_url(url: str, e: Exception) -> Unreachable:
    if login_is_cut(url):
        hint = f"what is special in user and password is percent-encoded: {ENCODED}"
    else:
        forms = "redis://USER:PASSWORD@HOST:PORT/DB, redis+sentinel://HOST:PORT,…/NAME/DB, unix:///SOCKET?db=DB"
        hint = f"use {forms}, with TLS rediss…; docs/redis.md, The URL"
    option = re.search(r"argument '(\w+)'", str(e))
    why = f": it has no option {option[1]!r}" if option else ""
    return Unreachable(f"{redacted(url)!r} is not a Redis URL{why}", hint=hint)


async def drop_idle(r: Client) -> None:
    """Close the pool's idle connections: after Redis was away each of them would fail once more."""
    await r.connection_pool.disconnect(inuse_connections=False)


@asynccontextmanager
async def connected(url: str, *, read_only: bool = False, owner: int | None = None) -> AsyncIterator[Client]:
    """A client that has answered PING; closed at the end. `owner`: as of `client`.

    Raises Unreachable: with the address and the way out, never the password.
    """
    made = client(url, read_only=read_only, owner=owner)
    try:
        try:
            async with within():
                if not await made.ping():
                    raise rexc.InvalidResponse("what answers there is no Redis")
        except (rexc.RedisError, OSError) as e:
            raise unreachable(url, e) from e
        try:
            yield made
        except rexc.RedisError as e:
            raise unreachable(url, e) from e
    finally:
        await made.aclose()


def unreachable(url: str, cause: BaseException) -> Unreachable:
    """Our error for a Redis at `url` that does not answer, or refuses us."""
    if (refusal := refusal_of(cause) or on_the_way(url, cause)) is not None:
        return Unreachable(f"Redis at {redacted(url)} {refusal.says}", hint=refusal.hint)
    if isinstance(cause, TimeoutError) and not str(cause):
        why = f"no word for {ANSWER_S:g} s"
    else:
        why = str(cause) or type(cause).__name__
    return Unreachable(
        f"Redis at {redacted(url)} does not answer: {why}",
        hint="is it running, and is redis.url right? `emp doctor` looks closer",
    )


# What a Redis that answers raises for a login it does not know, or one that may not do what it asks.
REFUSED = (rexc.AuthenticationError, rexc.NoPermissionError)
# What a Redis that is away, restarting, loading, full or read-only raises: daemons wait until it passes.
TRANSIENT = (rexc.RedisError, OSError)


async def time_ms(r: Client) -> int:
    """Redis TIME in milliseconds: the one clock that liveness is judged by."""
    seconds, micros = await r.time()
    return int(seconds) * 1000 + int(micros) // 1000
