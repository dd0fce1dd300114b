"""The connections of a process: few, waited for in line, and left when they lead to a replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from redis import exceptions as rexc

from emp_orch.store.redis import pool
from emp_orch.store.redis.client import API_CONNECTIONS, Client, client
from emp_orch.store.redis.pipelined import Bell, Pipelined
from support.http.stack import Stack
from support.redis.server import Server, running_server, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url, most=2)
    await made.flushall()
    yield made
    await made.replicaof("NO", "ONE")
    await made.aclose()


async def connections(url: str) -> int:
    """How many others have."""
    async with client(url, most=1) as mine:
        return len(await mine.client_list()) - 1


async def test_all_who_come_at_once_are_answered_in_turn(r: Client, server: Server) -> None:
    assert sorted(await asyncio.gather(*(r.incr("n") for _ in range(300)))) == list(range(1, 301))
    assert await connections(server.url) == 2


async def test_a_place_of_one_who_gave_up_goes_to_the_next(r: Client) -> None:
    block = [asyncio.ensure_future(r.blpop(["nothing"], 5)) for _ in range(2)]
    await asyncio.sleep(0)
    line = [asyncio.ensure_future(r.incr("n")) for _ in range(6)]
    await asyncio.sleep(0)
    for task in (line[0], line[3], *block):
        task.cancel()
    await asyncio.gather(*block, line[0], line[3], return_exceptions=True)
    async with asyncio.timeout(5):
        assert sorted(await asyncio.gather(line[1], line[2], line[4], line[5])) == [1, 2, 3, 4]
        assert sorted(await asyncio.gather(*(r.incr("n") for _ in range(10)))) == list(range(5, 15))


async def test_who_comes_while_a_connection_is_given_back_waits_in_line(r: Client) -> None:
    """redis-py closes an old one under a lock, for which a new caller waits after it found room."""
    async with r.connection_pool._lock:
        asked = [asyncio.ensure_future(r.incr("n")) for _ in range(6)]
        await asyncio.sleep(0.05)
        asked[0].cancel()
        await asyncio.sleep(0)
    assert sorted(await asyncio.gather(*asked[1:])) == [1, 2, 3, 4, 5]
    assert sorted(await asyncio.gather(*(r.incr("n") for _ in range(10)))) == list(range(6, 16))


async def test_who_waits_too_long_is_told_what_for(r: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 0.05)
    block = [asyncio.ensure_future(r.blpop(["nothing"], 5)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(rexc.MaxConnectionsError, match=r"all 2 connections of this process were in use for 0\.05 s"):
        await r.ping()
    for task in block:
        task.cancel()
    await asyncio.gather(*block, return_exceptions=True)
    assert await r.ping()


async def test_every_connection_is_left_when_one_is_told_that_it_leads_to_a_replica(
    r: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the ones that only read or wait, which would stay deaf."""
    monkeypatch.setattr(pool, "LEAVE_EVERY_S", 0.0)
    line, bell = Pipelined(r), Bell(r, "bell")
    await line.call("SET", "x", "1")
    assert await bell.wait(0.01, answer_s=5) is None
    waiting = asyncio.create_task(bell.wait(60, answer_s=5))
    following = asyncio.ensure_future(r.xread({"events": "$"}, block=60_000))
    await until(lambda: _blocked(line, 2))
    before = {c["id"] for c in await r.client_list()}
    await r.config_set("replica-serve-stale-data", "yes")
    await r.replicaof("127.0.0.1", "1")
    # A server that is demoted ends those who block itself; these block again, on what is a replica now.
    for task in (waiting, following):
        with pytest.raises(rexc.RedisError):
            await task
    with pytest.raises(rexc.RedisError):
        await line.call("SET", "x", "2")
    async with client(server.url) as other:

        async def left() -> bool:
            return not before & {c["id"] for c in await other.client_list()}

        await until(left)
    await line.aclose()
    await bell.aclose()


async def _blocked(line: Pipelined, count: int) -> bool:
    said = await line.call("INFO", "clients")
    return f"blocked_clients:{count}\r\n" in said


async def test_a_burst_of_requests_is_answered(http_stack: Stack) -> None:
    before = await connections(http_stack.settings.redis_url)
    async with aiohttp.ClientSession(base_url=http_stack.api, connector=aiohttp.TCPConnector(limit=0)) as api:

        async def get(path: str) -> int:
            async with api.get(path) as said:
                return said.status

        async def pause() -> int:
            async with api.post("/api/reconcile/pause", json={"reason": "burst"}) as said:
                return said.status

        assert set(await asyncio.gather(*(get("/api/jobs") for _ in range(150)))) == {200}
        assert set(await asyncio.gather(*(pause() for _ in range(144)))) == {200}
        assert await get("/health") == 200
    assert await connections(http_stack.settings.redis_url) <= max(before, API_CONNECTIONS + 1)
