"""A client over one line answers as the plain one does, and has that one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import exceptions as rexc

from emp_orch.jobs.document.model import Job
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.one_line import OneLine
from emp_orch.store.redis.pipelined import Pipelined
from emp_orch.store.reports.reports import read_worker
from support.redis.server import Server, job

KEYS = Keys("t:")


@pytest.fixture
async def one(server: Server, r: Client) -> AsyncIterator[OneLine]:
    pool = client(server.url, most=1, name="emp:worker:w0")
    line = Pipelined(pool)
    yield OneLine(pool, line)
    await line.aclose()
    await pool.aclose()


async def answers(r: Client) -> list[Any]:
    await r.flushdb()
    said: list[Any] = [await r.set("a", 1), await r.get("a"), await r.get("none"), await r.pexpire("a", 1000)]
    said += [await r.hset("h", mapping={"x": "1", "y": "ä"}), await r.hgetall("h"), await r.hmget("h", ["x", "z"])]
    said += [await r.zadd("z", {"m": 1.5}), await r.zrange("z", 0, -1, withscores=True), await r.mget(["a", "none"])]
    said += [await r.pubsub_numsub("c"), await r.publish("c", "x"), await r.xadd("s", {"f": "v"}, id="1-1")]
    said += [await r.xrange("s"), await r.exists("a"), await r.smembers("none"), await r.eval("return {1, 'x'}", 0)]
    for transaction in (True, False):
        async with r.pipeline(transaction=transaction) as pipe:
            pipe.incr("n")
            pipe.hgetall("h")
            pipe.zrange("z", 0, -1, withscores=True)
            said += [await pipe.execute(), await pipe.execute()]
            pipe.incr("h")
            with pytest.raises(rexc.ResponseError, match="WRONGTYPE"):
                await pipe.execute()
    with pytest.raises(rexc.ResponseError, match="WRONGTYPE"):
        await r.incr("h")
    return said


async def test_it_answers_as_the_plain_one(one: OneLine, r: Client) -> None:
    assert await answers(one) == await answers(r)
    assert abs(await time_ms(one) - await time_ms(r)) < 5_000


async def test_what_a_worker_asks_takes_one_connection(one: OneLine, r: Client) -> None:
    queue = Queue(one, KEYS)
    await Queue(r, KEYS).submit(job(id="a"))
    asked = [queue.get("a"), read_worker(one, KEYS, "w0"), Events(one, KEYS).append("x"), queue.counts()]
    found, *_ = await asyncio.gather(*asked * 1, *(queue.get("a") for _ in range(20)))
    assert isinstance(found, Job) and found.id == "a"
    assert [c["name"] for c in await r.client_list() if c["name"].startswith("emp:worker")] == ["emp:worker:w0"]
