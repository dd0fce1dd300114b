"""A failover behind one address: connections to the former primary are left, also those that only listen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from emp_orch.api import app
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis import client as connect
from emp_orch.store.redis.client import TRANSIENT, Client, client
from emp_orch.store.redis.keys import Keys
from support.redis.endpoint import Endpoint
from support.redis.server import Server, job, running_server, until

KEYS = Keys("t:")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    with running_server("redis", tmp_path / "a") as a, running_server("redis", tmp_path / "b") as b:
        yield a, b


async def fail_over(a: Client, b: Client, endpoint: Endpoint, port: int) -> None:
    """`b` is the primary from here on. `a` is a replica that hears nothing of it: cut off, as in many a failover."""
    await b.replicaof("NO", "ONE")
    await a.replicaof("127.0.0.1", "1")
    endpoint.leads_to = port


async def submitted(queue: Queue, name: str) -> bool:
    try:
        return (await queue.submit(job(id=name))).same
    except TRANSIENT:
        return False


async def claimed(claims: Claims) -> Claimed | None:
    try:
        held = await claims.claim_or_wait({"services": ["simulation"]})
        if isinstance(held, Claimed):
            return held
        await claims.wait(0.2)
    except TRANSIENT:
        pass
    return None


async def test_a_worker_and_who_submits_follow_the_primary(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emp_orch.store.redis.pool.LEAVE_EVERY_S", 0.05)
    first, second = servers
    async with Endpoint(first.port).open() as endpoint, client(first.url) as a, client(second.url) as b:
        await b.replicaof("127.0.0.1", str(first.port))
        async with client(endpoint.url) as one, client(endpoint.url) as other:
            queue, claims = Queue(one, KEYS), Claims(other, KEYS, "w0", lease_s=30)
            await queue.submit(job(id="before"))
            held = await until(lambda: claimed(claims))

            async def replicated() -> bool:
                return await b.hget(KEYS.job("before"), "status") == "assigned"

            await until(replicated)
            await fail_over(a, b, endpoint, second.port)

            async def ended() -> bool:
                try:
                    return await claims.completed(held, Result()) is JobStatus.COMPLETED
                except TRANSIENT:
                    return False

            await until(ended)
            await until(lambda: submitted(queue, "after"))
            assert (await until(lambda: claimed(claims))).job.id == "after"
            assert await b.hget(KEYS.job("before"), "status") == "completed", "the run was not lost, nor run again"
            await claims.aclose()


async def test_who_only_listens_is_not_deaf(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PRIMARY_EVERY_S", 0.1)
    first, second = servers
    async with Endpoint(first.port).open() as endpoint, client(first.url) as a, client(second.url) as b:
        await b.replicaof("127.0.0.1", str(first.port))
        heard, noted = asyncio.Event(), list[str]()
        async with client(endpoint.url) as api:

            async def listen() -> None:
                while True:
                    with suppress(*TRANSIENT):
                        async with api.pubsub() as channel:
                            await channel.subscribe("news")
                            while True:
                                message = await channel.get_message(ignore_subscribe_messages=True, timeout=10)
                                if message is not None:
                                    heard.set()
                    await asyncio.sleep(0.05)

            tasks = [
                asyncio.create_task(listen()),
                asyncio.create_task(app.stay_on_the_primary(api, KEYS, noted.append)),
            ]

            async def told(r: Client) -> bool:
                await r.publish("news", "x")
                await asyncio.sleep(0)
                return heard.is_set()

            await until(lambda: told(a))
            await fail_over(a, b, endpoint, second.port)
            heard.clear()
            await until(lambda: told(b))
            assert await Events(api, KEYS).latest_id() is not None

            async def both_told() -> bool:
                return "" in noted and any("is a read-only replica" in said for said in noted)

            await until(both_told)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_command_that_only_reads_follows_too(
    servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`emp events`, `emp apply` that waits: no write tells them, so their connections have an age."""
    monkeypatch.setattr(connect, "COMMAND_AGE_S", 0.2)
    first, second = servers
    async with Endpoint(first.port).open() as endpoint, client(first.url) as a, client(second.url) as b:
        await a.set("where", "first")
        await b.set("where", "second")
        async with client(endpoint.url, read_only=True) as reads:
            assert await reads.get("where") == "first"
            await fail_over(a, b, endpoint, second.port)

            async def follows() -> bool:
                return await reads.get("where") == "second"

            await until(follows)
