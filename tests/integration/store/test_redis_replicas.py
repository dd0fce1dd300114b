"""`redis.replicas`: a submission is answered when replicas have it; too few are refused, told, and looked at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import redis

from emp_orch import settings
from emp_orch.control.checks.redis_fitness import refuse_unfit
from emp_orch.control.doctor.checks.redis import missing_replicas
from emp_orch.control.doctor.facts.redis import read_redis
from emp_orch.control.upkeep.redis_watch import RedisWatch
from emp_orch.errors import Unreachable, UsageError
from emp_orch.fleet.journal.entries import Entry
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.settings import Settings
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import TRANSIENT, Client, client, unreachable
from emp_orch.store.redis.confirmed import NotConfirmed
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined
from support.http.stack import fleet_of
from support.redis.endpoint import Endpoint
from support.redis.server import Server, eventually, job, running_server, until
from support.worker.cli import write_settings

KEYS = Keys()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("pair")
    with (
        running_server("redis", folder / "a") as first,
        running_server("redis", folder / "b", "--replicaof", "127.0.0.1", str(first.port)) as second,
    ):
        yield first, second


def following(server: Server, count: int) -> None:
    with redis.Redis(port=server.port) as r:
        eventually(lambda: r.info("replication")["connected_slaves"] == count, within_s=60)
        eventually(lambda: count == 0 or r.wait(count, 100) == count, within_s=60)


@pytest.fixture
async def r(pair: tuple[Server, Server]) -> AsyncIterator[Client]:
    following(pair[0], 1)
    async with client(pair[0].url, most=4) as made:
        await made.flushall()
        yield made


@pytest.fixture
def fleet(tmp_path: Path, pair: tuple[Server, Server]) -> Settings:
    write_settings(tmp_path, pair[0].url)
    return msgspec.structs.replace(settings.load(Layout(tmp_path)), embedded=False, replicas=1)


async def test_what_is_answered_a_replica_has(r: Client, pair: tuple[Server, Server]) -> None:
    line = Pipelined(r)
    queue = Queue(r, KEYS, line.call, line.calls, replicas=1)
    try:
        ids = [(await queue.submit(job())).job_id, (await queue.submit(job(id="named"))).job_id]
        ids += [s.job_id for s in await queue.submit_many(job() for _ in range(300))]
        with redis.Redis(port=pair[1].port, decode_responses=True) as replica:
            assert set(replica.hkeys(KEYS.jobs)) == set(ids)
        claims = Claims(r, KEYS, "w0", lease_s=30, line=line, replicas=1)
        held = await claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(held, Claimed) and await claims.completed(held, Result()) is JobStatus.COMPLETED
        with redis.Redis(port=pair[1].port, decode_responses=True) as replica:
            assert replica.hget(KEYS.job(held.job.id), "status") == "completed"
        await claims.aclose()
    finally:
        await line.aclose()


async def test_without_its_replica(r: Client, pair: tuple[Server, Server], fleet: Settings, tmp_path: Path) -> None:
    first, second = pair
    written: list[Entry] = []

    async def write(entries: list[Entry]) -> None:
        written.extend(entries)

    await refuse_unfit(fleet, fleet_of("m1"))
    watch = RedisWatch(r, KEYS, Layout(tmp_path), fleet, write)
    await watch.look()
    await watch.look_for_replicas()
    assert watch.status.alone == "" and written == []
    line = Pipelined(r)
    queue = Queue(r, KEYS, line.call, line.calls, replicas=1)
    second.stop()
    try:
        following(first, 0)
        with pytest.raises(UsageError, match=r"has 0 replicas that follow it, and redis\.replicas wants 1") as refused:
            await refuse_unfit(fleet, fleet_of("m1"))
        assert "start its replicas" in refused.value.hint
        with pytest.raises(NotConfirmed) as caught:
            await queue.submit(job(id="alone"))
        told = unreachable(first.url, caught.value)
        assert isinstance(told, Unreachable) and "0 of 1 replicas confirmed that" in told.message
        assert (await queue.get("alone")).status is JobStatus.PENDING, "it stands all the same"
        claims = Claims(r, KEYS, "w0", lease_s=30, line=line, replicas=1)
        held = await claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(held, Claimed) and await claims.completed(held, Result()) is JobStatus.COMPLETED
        await claims.aclose()
        await watch.look_for_replicas()
        assert watch.status.alone.startswith("0 replicas follow Redis, 1 wanted (redis.replicas): ")
        await watch.look_for_replicas()
        assert [kind for kind, _ in written] == ["redis_replicas"]
        found = missing_replicas((await read_redis(fleet)).info, 1)
        assert [p.what for p in found] == [watch.status.alone.partition(";")[0]]
    finally:
        second.start()
        await line.aclose()
    following(first, 1)
    await watch.look_for_replicas()
    assert watch.status.alone == "" and [str(d["reason"]) for _, d in written][1:] == ["1 replicas follow Redis again"]
    found = missing_replicas((await read_redis(fleet)).info, 1)
    assert ["min-replicas-to-write 1" in p.fix for p in found] == [True]
    await r.config_set("min-replicas-to-write", 1)
    try:
        assert not list(missing_replicas((await read_redis(fleet)).info, 1))
        second.stop()
        following(first, 0)
        with pytest.raises(Unreachable, match="too few replicas follow it") as none:
            await refuse_unfit(fleet, fleet_of("m1"))
        assert "min-replicas-to-write" in none.value.hint
    finally:
        second.start()
        await r.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_what_a_failover_loses(replicas: int, tmp_path: Path) -> None:
    """A replica 50 ms away; the primary dies while jobs are submitted. With one, nothing that was answered is lost."""
    with (
        running_server("redis", tmp_path / "a") as primary,
        running_server("redis", tmp_path / "b") as replica,
        redis.Redis(port=replica.port, decode_responses=True) as there,
    ):
        async with Endpoint(primary.port, delay_s=0.05).open() as link, client(primary.url, most=3) as mine:
            there.replicaof("127.0.0.1", str(link.port))
            await until(lambda: mine.wait(1, 1_000), within_s=60)
            line = Pipelined(mine)
            queue = Queue(mine, KEYS, line.call, line.calls, replicas=replicas)
            answered: list[str] = []

            async def submit() -> None:
                while True:
                    answered.append((await queue.submit(job())).job_id)

            async with asyncio.TaskGroup() as sending:
                tasks = [sending.create_task(_until_away(submit())) for _ in range(8)]
                await until(lambda: _at_least(answered, 100), within_s=60)
                link.cut()
                primary.stop()
            await line.aclose()
            assert all(task.done() for task in tasks)
        there.replicaof("NO", "ONE")
        lost = set(answered) - set(there.hkeys(KEYS.jobs))
        print(f"replicas: {replicas}: {len(lost)} of {len(answered)} answered jobs are lost")
        assert bool(lost) == (replicas == 0)


async def _until_away(work: Awaitable[None]) -> None:
    with suppress(*TRANSIENT):
        await work


async def _at_least(found: list[str], count: int) -> bool:
    return len(found) >= count
