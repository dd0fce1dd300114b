"""Many callers on one connection: each gets its own answer, whatever happens to the others and to the connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import exceptions as rexc

from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.pipelined import Bell, Pipelined
from support.redis.server import Server


@pytest.fixture
async def line(r: Client) -> AsyncIterator[Pipelined]:
    made = Pipelined(r)
    yield made
    await made.aclose()


async def test_one_after_the_other_and_many_at_once(line: Pipelined) -> None:
    assert await line.call("PING") == "PONG"
    assert await line.call("ECHO", "é") == "é"
    assert await asyncio.gather(*(line.call("ECHO", n) for n in range(500))) == [str(n) for n in range(500)]
    assert await line.call("ECHO", "last") == "last"


async def test_commands_that_go_out_together_are_answered_in_their_order(line: Pipelined) -> None:
    assert await line.calls(("SET", "k", "1"), ("GET", "k"), ("GET", "none")) == ["OK", "1", None]
    some = await asyncio.gather(*(line.calls(("ECHO", n), ("ECHO", -n)) for n in range(200)))
    assert some == [[str(n), str(-n)] for n in range(200)]
    with pytest.raises(rexc.ResponseError):
        await line.calls(("PING",), ("GET",), ("NO-SUCH-COMMAND",))
    calls = [asyncio.create_task(line.calls(("ECHO", n), ("ECHO", -n))) for n in range(50)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    assert await asyncio.gather(*calls[1::2]) == [[str(n), str(-n)] for n in range(1, 50, 2)]
    assert await line.call("ECHO", "end") == "end"


async def test_an_error_is_its_callers_alone(line: Pipelined) -> None:
    wrong: Any
    right: Any
    wrong, right = await asyncio.gather(line.call("GET"), line.call("ECHO", "x"), return_exceptions=True)
    assert isinstance(wrong, rexc.ResponseError) and right == "x"
    with pytest.raises(rexc.ResponseError):
        await line.call("NO-SUCH-COMMAND")
    assert await line.call("PING") == "PONG"


@pytest.mark.parametrize("seed", range(10))
async def test_cancelled_callers_take_nobodys_answer(line: Pipelined, seed: int) -> None:
    rng = random.Random(seed)

    async def ask(n: int) -> str:
        return str(await line.call("ECHO", n))

    kept = []
    for n in range(300):
        task = asyncio.create_task(ask(n))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.4:
            task.cancel()
        else:
            kept.append((n, task))
    assert [await task for _, task in kept] == [str(n) for n, _ in kept]
    assert await line.call("ECHO", "end") == "end"


async def test_a_lost_connection_is_told_to_all_who_wait_and_made_anew(r: Client, line: Pipelined) -> None:
    await line.call("PING")
    waiting = [asyncio.create_task(line.call("BLPOP", "nothing", 30)) for _ in range(3)]
    await asyncio.sleep(0)

    async def killed() -> int:
        return int(await r.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))

    while not await killed():
        await asyncio.sleep(0)
    for task in waiting:
        with pytest.raises((rexc.ConnectionError, OSError)):
            async with asyncio.timeout(10):
                await task
    assert await line.call("PING") == "PONG"


async def test_a_server_that_is_away_is_an_error_and_no_more_when_it_is_back(
    r: Client, line: Pipelined, server: Server
) -> None:
    await line.call("PING")
    server.stop()
    for _ in range(3):
        with pytest.raises((rexc.ConnectionError, OSError)):
            await line.call("PING")
    server.start()
    assert await line.call("PING") == "PONG"


async def test_closing_tells_those_who_wait(r: Client) -> None:
    line = Pipelined(r)
    await line.call("PING")
    waiting = asyncio.create_task(line.call("BLPOP", "nothing", 30))
    await asyncio.sleep(0)
    await line.aclose()
    with pytest.raises(rexc.ConnectionError):
        await waiting


async def test_a_bell_loses_no_ring(r: Client) -> None:
    bell = Bell(r, "bell")
    waiting = asyncio.create_task(bell.wait(30, answer_s=5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await r.lpush("bell", "ring")
    assert await bell.wait(30, answer_s=5) == "ring"
    assert await bell.wait(0.01, answer_s=5) is None
    await bell.aclose()


async def test_a_bell_is_waited_for_no_longer_than_asked_after_a_longer_wait_was_cut_short(r: Client) -> None:
    """It ends in its own time: Redis, asked for longer, is not late. The ring still comes to the next."""
    bell = Bell(r, "bell")
    waiting = asyncio.create_task(bell.wait(30, answer_s=5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await bell.wait(0.05, answer_s=5) is None
    await r.lpush("bell", "ring")
    assert await bell.wait(30, answer_s=5) == "ring"
    await bell.aclose()


@pytest.mark.parametrize("at_once", [1, 3])
async def test_closing_while_answers_arrive_tells_those_who_wait(r: Client, at_once: int) -> None:
    """Whichever comes first in one turn of the loop."""
    for turns in range(60):
        line = Pipelined(r)
        await line.call("PING")
        asked = [asyncio.create_task(line.call("ECHO", n)) for n in range(at_once)]
        await asyncio.sleep(0)
        for _ in range(100 if turns % 2 else 0):  # the answer is there, and nobody was told yet
            await r.ping()
        for _ in range(turns // 2 % 6):
            await asyncio.sleep(0)
        time.sleep(0.001)  # the answer arrives
        closing = asyncio.create_task(line.aclose())
        for n, said in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
            assert said == str(n) or isinstance(said, rexc.ConnectionError), repr(said)
        await closing
        await line.aclose()


@pytest.mark.parametrize("read_first", [True, False])
async def test_a_connection_that_is_lost_is_told_as_such_whatever_the_loop(server: Server, read_first: bool) -> None:
    """uvloop raises a RuntimeError for such a write, asyncio a ConnectionResetError."""
    uvloop = pytest.importorskip("uvloop", reason="it is for Linux")

    async def lose() -> list[str]:
        r = client(server.url)
        line = Pipelined(r)
        told = []
        try:
            if read_first:
                assert await line.call("PING")
            for what in (line.call, r.execute_command):
                await what("PING")
                made = line._connection if what == line.call else r.connection_pool._available_connections[0]
                assert made._writer is not None
                transport = made._writer.transport
                transport.abort()
                while "closed=True" not in repr(transport):
                    await asyncio.sleep(0)
                try:
                    told.append(str(await what("ECHO", "x")))
                except rexc.ConnectionError as e:
                    told.append(type(e).__name__)
                told.append(str(await what("ECHO", "again")))
        finally:
            await line.aclose()
            await r.aclose()
        return told

    told = await asyncio.to_thread(uvloop.run, lose())
    # redis-py's own client finds that it is lost before it writes.
    assert told == ["ConnectionError", "again", told[2], "again"] and told[2] in ("x", "ConnectionError")
