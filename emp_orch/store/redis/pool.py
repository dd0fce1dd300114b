"""The connections of one process to Redis: few, waited for, and left all together when they lead to a replica.

A failover may leave a connection standing that leads to the former primary, which is a replica now: it answers every
read, with what it had, and refuses every write with READONLY. Only a new connection finds the new primary.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any
from weakref import WeakSet

import redis.asyncio as aioredis
from redis import exceptions as rexc
from redis.asyncio import connection as plain

from emp_orch.host.ports import StrangersPort, refuse_strangers
from emp_orch.store.redis.sentinel import Primary

# At most this long a request waits for a connection that is free.
PATIENCE_S = 10.0
# All connections are left at most this often: as long as there is no other primary, the next ones lead there too.
LEAVE_EVERY_S = 1.0


def says_read_only(e: BaseException) -> bool:
    """Whether a write was refused because this Redis is a replica. Before Redis 7, what a script meets is wrapped."""
    return isinstance(e, rexc.ReadOnlyError) or (isinstance(e, rexc.ResponseError) and "READONLY" in str(e))


def _lost(e: RuntimeError) -> Exception:
    """What a write to a transport that is closed is under uvloop; asyncio's own raises what redis-py expects."""
    said = str(e)
    return rexc.ConnectionError("the connection is closed") if "handler is closed" in said else e


class _Watched(plain.AbstractConnection):
    """Has the name of its pool, and tells that when it leads to a replica. With sentinels it asks them where to go."""

    pool: Pool | None = None
    since_s = 0.0

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        if not self.is_connected and self.pool is not None:
            if self.pool.primary is not None:
                vars(self).update(await self.pool.primary.now())
            self.since_s = monotonic()
        await super().connect_check_health(*args, **options)

    def should_reconnect(self) -> bool:
        old = self.pool is not None and monotonic() - self.since_s > self.pool.age_s
        return old or bool(super().should_reconnect())  # type: ignore[no-untyped-call]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._refuse_strangers()
        await super().on_connect_check_health(check_health)
        if self.pool is not None and self.pool.shown_as:
            # redis-py would give up the connection of a user who may not.
            with suppress(rexc.ResponseError):
                await self.send_command("CLIENT", "SETNAME", self.pool.shown_as, check_health=False)
                await super().read_response()

    def _refuse_strangers(self) -> None:
        """Before the login is sent. Raises ConnectionError."""
        if self.pool is None or self.pool.owner is None or not isinstance(self, plain.Connection):
            return
        try:
            refuse_strangers(self.host, int(self.port), self.pool.owner)
        except StrangersPort as e:
            raise rexc.ConnectionError(str(e)) from e

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        try:
            await super().send_packed_command(*args, **options)
        except RuntimeError as e:
            raise _lost(e) from e

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except rexc.ResponseError as e:
            if self.pool is not None and says_read_only(e):
                self.pool.leave_soon()
            raise
        except RuntimeError as e:
            raise _lost(e) from e


class _Tcp(_Watched, plain.Connection):
    pass


class _Tls(_Watched, plain.SSLConnection):
    async def disconnect(self, *args: Any, **options: Any) -> None:
        """At once: to close TLS in good order is to wait for a word of the server, and one that hangs says none."""
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **options)


class _Unix(_Watched, plain.UnixDomainSocketConnection):
    async def _connect(self) -> None:
        """Only that: redis-py would log in here, and once more after it, and call a refusal of the first a lost way."""
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)


WATCHED: dict[type, type[_Watched]] = {
    plain.Connection: _Tcp,
    plain.SSLConnection: _Tls,
    plain.UnixDomainSocketConnection: _Unix,
}


class Pool(aioredis.ConnectionPool):
    """At most `max_connections`; who finds all of them in use waits in line, at most PATIENCE_S. One that is older than
    `age_s` is made anew before its next use. `owner`: the user whose server it must be, where that is on loopback.
    """

    def __init__(
        self,
        *,
        shown_as: str = "",
        primary: Primary | None = None,
        age_s: float = float("inf"),
        owner: int | None = None,
        **options: Any,
    ) -> None:
        self.shown_as, self.primary, self.age_s, self.owner = shown_as, primary, age_s, owner
        given = options.pop("connection_class", plain.Connection)
        super().__init__(connection_class=WATCHED.get(given, given), **options)
        self._line: deque[asyncio.Future[None]] = deque()
        self._promised = 0
        self._takers: set[asyncio.Task[Any] | None] = set()
        self._made: WeakSet[plain.AbstractConnection] = WeakSet()
        self._leaving: asyncio.Task[None] | None = None

    def make_connection(self) -> Any:
        """Also for those who keep one for themselves beside the pool."""
        made: Any = super().make_connection()  # type: ignore[no-untyped-call]
        made.pool = self
        self._made.add(made)
        return made

    async def get_connection(self, *_: Any, **__: Any) -> Any:
        """A connection that stands. Raises MaxConnectionsError when none gets free in time."""
        if self._line or self._room() <= 0:
            await self._turn()
        else:
            self._promised += 1
        # The place stays promised until it is taken: redis-py waits for its lock first.
        taker = asyncio.current_task()
        self._takers.add(taker)
        try:
            return await super().get_connection()  # type: ignore[no-untyped-call]
        finally:
            if taker in self._takers:  # given up before it was taken
                self._take_up(taker)
                self._call_next()

    def get_available_connection(self) -> Any:
        self._take_up(asyncio.current_task())
        return super().get_available_connection()  # type: ignore[no-untyped-call]

    def _take_up(self, taker: asyncio.Task[Any] | None) -> None:
        self._takers.discard(taker)
        self._promised -= 1

    async def release(self, connection: Any) -> None:
        try:
            await super().release(connection)
        finally:
            self._call_next()

    def _room(self) -> int:
        return self.max_connections - len(self._in_use_connections) - self._promised

    async def _turn(self) -> None:
        """Return once a place is promised to the caller."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn
        except BaseException as e:
            if turn.done() and not turn.cancelled():  # promised in the same moment
                self._promised -= 1
            elif turn in self._line:
                self._line.remove(turn)
            self._call_next()
            if isinstance(e, TimeoutError):
                raise rexc.MaxConnectionsError(
                    f"all {self.max_connections} connections of this process were in use for {PATIENCE_S:g} s"
                ) from e
            raise

    def _call_next(self) -> None:
        while self._line and self._room() > 0:
            turn = self._line.popleft()
            if not turn.done():
                self._promised += 1
                turn.set_result(None)

    def leave_soon(self) -> None:
        """Close every connection, in use or not: whoever reads on one hears of it and connects anew."""
        if self._leaving is None or self._leaving.done():
            self._leaving = asyncio.create_task(self._leave(), name="leave a replica")

    async def _leave(self) -> None:
        await asyncio.sleep(0)  # who was told READONLY reads its answer to the end
        await asyncio.gather(*(c.disconnect(nowait=True) for c in list(self._made)), return_exceptions=True)
        await asyncio.sleep(LEAVE_EVERY_S)

    async def aclose(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            await asyncio.wait([self._leaving])
        if self.primary is not None:
            await self.primary.aclose()
        await super().aclose()
