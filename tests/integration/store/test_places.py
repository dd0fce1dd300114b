"""Whichever key of the queue is evicted, its jobs are put back or worked off: no job stays pending for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from emp_orch.control.jobs.stray_jobs import EVERY_MS, StrayJobs
from emp_orch.fleet.journal.entries import Entry
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, job, running_server

ABLE = {"services": ["simulation", "comfyui"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    async with client(server.url) as made:
        await made.flushall()
        yield made


class World:
    def __init__(self, r: Client) -> None:
        self.r, self.keys, self.written, self.now_ms = r, Keys("p:"), list[Entry](), 0
        self.queue = Queue(r, self.keys)
        self.claims = Claims(r, self.keys, "w0", lease_s=30)

        async def write(entries: list[Entry]) -> None:
            self.written += entries

        self.care = StrayJobs(r, self.keys, write)

    async def tend(self) -> None:
        self.now_ms += EVERY_MS
        await self.care.tend(self.now_ms)

    async def work(self, most: int) -> list[str]:
        """Claim and complete until nothing is left, at most so many."""
        done = []
        for _ in range(most):
            held = await self.claims.claim_or_wait(ABLE)
            if not isinstance(held, Claimed):
                break
            await self.claims.completed(held, Result())
            done.append(held.job.id)
        return done


async def begun(r: Client) -> tuple[World, set[str], Claimed]:
    """Two lanes; one job completed, one held, 18 waiting."""
    world = World(r)
    sent = await world.queue.submit_many(
        [job(priority=n % 3) for n in range(10)] + [job("comfyui", payload={"prompt": {}}) for _ in range(10)]
    )
    assert len(await world.work(1)) == 1
    held = await world.claims.claim_or_wait(ABLE)
    assert isinstance(held, Claimed)
    await world.tend()
    assert world.written == []
    return world, {s.job_id for s in sent}, held


async def keys_of(r: Client, keys: Keys) -> list[str]:
    """All that the queue itself holds, but the jobs' own records."""
    kept = (keys.jobs, keys.events, keys.job(""), keys.payload(""), keys.progress(""))
    return sorted([key async for key in r.scan_iter() if key != keys.jobs and not key.startswith(kept[1:])])


async def test_each_key_that_is_removed(r: Client) -> None:
    """One by one: all jobs end at last, each once, and what is put back is told."""
    world, _, _ = await begun(r)
    names = await keys_of(r, world.keys)
    assert {world.keys.lanes, world.keys.leases, world.keys.lanes_log} <= set(names), names
    assert sum(":lane:" in name or name.startswith("p:lane:") for name in names) >= 2, names
    for name in names:
        await r.flushall()
        world, ids, held = await begun(r)
        matching = [key for key in await keys_of(r, world.keys) if key == name or key[:12] == name[:12]]
        await r.delete(*(matching if name not in matching else [name]))
        await world.tend()
        await world.tend()
        done = await world.work(30)
        status = await world.claims.completed(held, Result())
        if status is None:  # its lease was over meanwhile
            for lost in await Reaper(r, world.keys).expired():
                await Reaper(r, world.keys).end(lost)
            done += await world.work(5)
        left = {i: s for i, s in (await world.queue.statuses(sorted(ids))).items() if s is not JobStatus.COMPLETED}
        assert not left and len(done) == len(set(done)), (name, left)
        await world.tend()
        assert (await world.queue.counts())[JobStatus.COMPLETED] == 20, name


async def test_a_lane_that_was_evicted_is_told_with_ids(r: Client) -> None:
    world, ids, _ = await begun(r)
    (first, *_) = [key async for key in r.scan_iter(match=f"{world.keys.lane('')}*")]
    gone = [entry[21:] for entry in await r.zrange(first, 0, -1)]
    await r.delete(first)
    await world.tend()
    ((kind, data),) = world.written
    assert kind == "jobs_put_back" and data["jobs"] == len(gone) and set(gone) <= ids
    assert str(data["reason"]).startswith(f"{len(gone)} jobs stood in no lane: ") and "maxmemory-policy" in data["hint"]
    assert any(str(i) in str(data["reason"]) for i in gone)
    await world.tend()
    assert len(world.written) == 1


async def test_a_record_that_was_lost_costs_a_second_run_at_most(r: Client) -> None:
    world, _, held = await begun(r)
    await r.delete(world.keys.job(held.job.id))
    await Reaper(r, world.keys).expired(grace_ms=-60_000)  # its lease is a stranger's now
    await world.tend()
    assert held.job.id in await world.work(30)


async def test_nothing_is_looked_at_while_nothing_is_missing(r: Client) -> None:
    world, _, _ = await begun(r)
    before = (await r.info("commandstats")).get("cmdstat_hscan", {}).get("calls", 0)
    for _ in range(5):
        await world.tend()
    assert (await r.info("commandstats")).get("cmdstat_hscan", {}).get("calls", 0) == before
