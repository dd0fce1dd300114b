"""Commands of many tasks over one connection: whatever is asked in one turn of the loop goes out in one write.

redis-py's client takes a connection for each command and so pays a write and a wait for each. Here its connection
(login, TLS, errors) is kept, and answers are handed out in the order of the questions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
from redis import exceptions as rexc

from emp_orch.store.redis.client import Client
from emp_orch.store.redis.key_errors import named
from emp_orch.store.redis.pool import Pool

# A question whose caller gave up may be without an answer for so long; then nobody is there, though the way stands.
SILENT_S = 5.0


class Pipelined:
    """One connection, made at the first call and again after it was lost. Raises what redis-py raises.

    A call that finds nobody else's answer outstanding reads its own; else a task reads for all until none is left.
    A call that is cancelled may still be carried out: its question is on the way. Where it is not answered within
    SILENT_S either, the server hangs: the process leaves it with all its connections, and finds the primary anew.
    """

    def __init__(self, r: Client) -> None:
        self._pool = r.connection_pool
        self._connection: Any = None
        self._connecting = asyncio.Lock()
        self._reading = False
        self._reader: asyncio.Task[None] | None = None
        self._questions: list[bytes] = []
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._flushing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None

    async def call(self, *args: Any) -> Any:
        """The answer to one command, texts decoded."""
        return (await self.calls(args))[0]

    async def calls(self, *commands: Sequence[Any]) -> list[Any]:
        """The answers to some commands that go out together. A hash is a list, or under RESP3 a dict."""
        if self._connection is None:
            await self._connect()
        questions = [hiredis.pack_command(tuple(command)) for command in commands]
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        answers: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        alone = not self._answers and not self._questions and not self._reading
        self._answers.extend(answers)
        try:
            if alone:
                await self._ask_alone(questions, answers)
            else:
                if not self._questions:
                    self._flushing = asyncio.create_task(self._flush(), name="redis flush")
                self._questions += questions
                self._read_for_all()
                await asyncio.gather(*answers, return_exceptions=True)
        except asyncio.CancelledError:
            loop.call_at(asked_s + SILENT_S, self._leave_if_silent, answers[-1])
            raise
        for command, answer in zip(commands, answers, strict=True):
            if (e := answer.exception()) is not None:
                raise named(e, command) if isinstance(e, rexc.ResponseError) else e
        return [answer.result() for answer in answers]

    async def aclose(self) -> None:
        await self._drop(rexc.ConnectionError("the connection was closed"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._reader = None

    async def _connect(self) -> None:
        async with self._connecting:
            if self._connection is not None:
                return
            made: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await made.connect()
            except BaseException:
                await made.disconnect(nowait=True)
                raise
            self._connection = made

    async def _ask_alone(self, questions: list[bytes], answers: list[asyncio.Future[Any]]) -> None:
        self._reading = True
        try:
            connection = self._connection
            await self._send(questions)
            await self._read(connection, answers[-1])
        except asyncio.CancelledError:
            for answer in answers:
                answer.cancel()  # whoever reads next throws it away
            raise
        finally:
            self._reading = False
            self._read_for_all()

    async def _flush(self) -> None:
        questions, self._questions = self._questions, []
        await self._send(questions)

    async def _send(self, questions: list[bytes]) -> None:
        """Write before anything else can: the order of questions is the order of answers."""
        connection = self._connection
        if connection is None:
            return  # lost meanwhile; whoever waits was told
        try:
            await connection.send_packed_command(questions, check_health=False)
        except (rexc.ConnectionError, rexc.TimeoutError, OSError) as e:
            await self._lose(connection, e)

    def _read_for_all(self) -> None:
        """See to it that somebody reads while answers are outstanding."""
        if self._answers and not self._reading and self._connection is not None:
            self._reading = True
            self._reader = asyncio.create_task(self._read_to_the_last(), name="redis answers")

    async def _read_to_the_last(self) -> None:
        try:
            await self._read(self._connection, None)
        finally:
            self._reading = False
            self._read_for_all()

    async def _read(self, connection: Any, mine: asyncio.Future[Any] | None) -> None:
        """Hand out answers until `mine` is there (None: the last one), or the connection is lost."""
        while self._answers and connection is self._connection and not (mine is not None and mine.done()):
            try:
                said = await connection.read_response(disconnect_on_error=False)
            except rexc.ResponseError as e:
                said = e
            except (rexc.RedisError, OSError) as e:
                await self._lose(connection, e)
                return
            if connection is not self._connection:
                return  # dropped in the same turn of the loop: who asked was told, the next answers are others'
            answer = self._answers.popleft()
            if answer.done():
                continue  # its caller was cancelled
            if isinstance(said, rexc.ResponseError):
                answer.set_exception(said)
            else:
                answer.set_result(said)

    async def _lose(self, connection: Any, cause: BaseException) -> None:
        if connection is self._connection:
            await self._drop(cause)

    def _leave_if_silent(self, answer: asyncio.Future[Any]) -> None:
        """Leave a server that has still not answered what was given up: another may be the primary by now."""
        if any(a is answer for a in self._answers):
            self._leaving = asyncio.create_task(self._leave(), name="leave a server that hangs")

    async def _leave(self) -> None:
        await self._drop(rexc.ConnectionError("Redis does not answer"))
        if isinstance(self._pool, Pool):
            self._pool.leave_soon()

    async def _drop(self, cause: BaseException) -> None:
        connection, self._connection = self._connection, None
        waiting, self._answers = self._answers, deque()
        self._questions = []
        for answer in waiting:
            if not answer.done():
                answer.set_exception(rexc.ConnectionError(str(cause) or type(cause).__name__))
        if connection is not None:
            await connection.disconnect(nowait=True)


class Bell:
    """A list that one worker blocks on. A wait that is cancelled loses no ring: the next wait gets it."""

    def __init__(self, r: Client, key: str) -> None:
        self._line = Pipelined(r)
        self._key = key
        self._ringing: asyncio.Task[Any] | None = None
        self._until = 0.0  # by the loop's clock: when Redis is to answer `_ringing`, ring or none

    async def wait(self, seconds: float, *, answer_s: float) -> str | None:
        """What was pushed, as soon as it is there; None after `seconds`, or sooner if an earlier wait was cut short.

        Raises TimeoutError when Redis says nothing for `answer_s` beyond the time that it was given.
        """
        now = asyncio.get_running_loop().time()
        seconds = max(seconds, 0.01)  # Redis reads 0 as "for ever"
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._line.call("BLPOP", self._key, seconds), name="bell")
            self._until = now + seconds
        ringing, sooner = self._ringing, now + seconds < self._until
        await asyncio.wait([ringing], timeout=seconds if sooner else self._until + answer_s - now)
        if not ringing.done():
            if sooner:  # an earlier wait asked for longer: Redis is not late
                return None
            await self.aclose()
            raise TimeoutError("Redis does not answer")
        self._ringing = None
        said = ringing.result()
        return None if said is None else str(said[1])

    async def aclose(self) -> None:
        ringing, self._ringing = self._ringing, None
        await self._line.aclose()
        if ringing is not None:
            ringing.cancel()
            await asyncio.wait([ringing])
            if not ringing.cancelled():
                ringing.exception()  # seen: the line was closed on purpose
