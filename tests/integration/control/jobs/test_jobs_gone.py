"""A Redis that lost jobs, or evicts keys, is told of once, with the number, by whichever reconciler sees it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from emp_orch import settings
from emp_orch.control.upkeep.redis_watch import RedisWatch
from emp_orch.fleet.journal.entries import Entry
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.layout import Layout
from emp_orch.settings import Settings
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, job, running_server
from support.worker.cli import write_settings

MIB = 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


class Fleet:
    """A fleet's folder, and its Redis."""

    def __init__(self, r: Client, folder: Path, url: str) -> None:
        self.r, self.folder = r, folder
        write_settings(folder, url)
        self.settings = msgspec.structs.replace(settings.load(Layout(folder)), embedded=False)
        self.keys = Keys(self.settings.prefix)
        self.queue = Queue(r, self.keys)
        self.written: list[Entry] = []

    def watch(self, changed: Settings | None = None) -> RedisWatch:
        """A reconciler's, as it begins."""

        async def write(entries: list[Entry]) -> None:
            self.written += entries

        return RedisWatch(self.r, self.keys, Layout(self.folder), changed or self.settings, write)

    async def submit(self, count: int) -> None:
        await self.queue.submit_many(job() for _ in range(count))

    async def told(self) -> list[str]:
        entries = await journal.recent(self.r, self.keys, self.settings.fleet, 100)
        events = [e.type for e in await Events(self.r, self.keys).recent(100)]
        assert events.count("jobs_lost") == len(entries)
        return [str(e.data["reason"]) for e in entries if e.type == "jobs_lost"]


@pytest.fixture
async def fleet(server: Server, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with client(server.url) as r:
        await r.flushall()
        yield Fleet(r, tmp_path, server.url)
        await r.config_set("maxmemory", 0)
        await r.config_set("maxmemory-policy", "noeviction")


EMPTY = "142 jobs are gone: Redis came back empty"


async def test_one_that_came_back_empty_is_told_once(fleet: Fleet, tmp_path: Path) -> None:
    here, elsewhere = fleet.watch(), Fleet(fleet.r, tmp_path / "elsewhere", "redis://x").watch(fleet.settings)
    await fleet.submit(143)
    claims = Claims(fleet.r, fleet.keys, "w0", lease_s=30)
    held = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(held, Claimed)
    await claims.completed(held, Result())
    await here.look()
    await elsewhere.look()
    assert here.status.lost is None
    await fleet.r.flushall()
    for watch in (elsewhere, here, elsewhere, here, fleet.watch()):
        await watch.look()
        assert watch.status.lost is not None and watch.status.lost.words == EMPTY
    assert await fleet.told() == [EMPTY]
    await fleet.submit(2)
    await here.look()
    await fleet.r.flushall()
    await here.look()
    assert await fleet.told() == ["2 jobs are gone: Redis came back empty"], "the next is told as well"


async def test_a_reconciler_that_was_away_remembers(fleet: Fleet) -> None:
    await fleet.submit(142)
    await fleet.watch().look()
    await fleet.r.flushall()
    elsewhere = msgspec.structs.replace(fleet.settings, redis_url="redis://127.0.0.1:1/0")
    assert Layout(fleet.folder).counted.exists()
    kept = Layout(fleet.folder).counted.read_bytes()
    await fleet.watch(elsewhere).look()
    assert await fleet.told() == [], "another Redis has other jobs"
    await fleet.r.flushall()
    Layout(fleet.folder).counted.write_bytes(kept)
    await fleet.watch().look()
    assert await fleet.told() == [EMPTY]


async def test_jobs_that_ended_or_were_purged_are_not_lost(fleet: Fleet) -> None:
    watch = fleet.watch()
    await fleet.submit(20)
    await watch.look()
    for one in (await fleet.queue.list(limit=20)).jobs:
        await fleet.queue.cancel(one.id)
    assert await fleet.queue.purge([JobStatus.CANCELLED]) == 20
    await watch.look()
    await fleet.r.flushall()
    await watch.look()
    assert (await fleet.told(), watch.status.lost) == ([], None)


async def test_one_that_came_back_as_it_was(fleet: Fleet, server: Server) -> None:
    watch = fleet.watch()
    await fleet.submit(5)
    await watch.look()
    await watch.look()
    saved = {key: await fleet.r.dump(key) for key in await _raw(server)}
    await fleet.submit(3)
    await watch.look()
    await fleet.r.flushall()
    for key, text in saved.items():
        assert text is not None
        await fleet.r.restore(key, 0, text)
    await watch.look()
    assert await fleet.told() == ["3 jobs are gone: Redis came back as it had been earlier"]


async def _raw(server: Server) -> list[str]:
    async with client(server.url) as r:
        return [str(key) for key in await r.keys("*")]


async def test_jobs_that_were_evicted(fleet: Fleet) -> None:
    watch = fleet.watch()
    await fleet.submit(300)
    await watch.look()
    await watch.look_for_evictions()
    assert watch.status.eviction == ""
    await fleet.r.config_set("maxmemory-policy", "allkeys-random")
    await fleet.r.config_set("maxmemory", 1)  # all that can go goes at the next command that needs memory
    with pytest.raises(Exception, match="maxmemory"):
        await fleet.r.set("more", "x" * 1000)
    await fleet.r.config_set("maxmemory", 512 * MIB)
    await watch.look()
    await watch.look_for_evictions()
    await watch.look_for_evictions()
    (said,) = await fleet.told()
    assert said.startswith("300 jobs are gone: ")
    assert "throws jobs and reports away when its memory is full (maxmemory-policy allkeys-random); it evicted " in (
        watch.status.eviction
    )
    assert [kind for kind, _ in fleet.written] == ["redis_evicted"]
    await fleet.r.config_set("maxmemory-policy", "noeviction")
    await watch.look_for_evictions()
    assert watch.status.evicts, "it did a moment ago"


async def test_records_that_were_removed_are_told_with_ids(fleet: Fleet) -> None:
    watch = fleet.watch()
    await fleet.submit(2)
    ids = sorted(one.id for one in (await fleet.queue.list()).jobs)
    await watch.look()
    await fleet.r.delete(fleet.keys.jobs)
    await watch.look()
    assert watch.status.lost is not None and sorted(watch.status.lost.ids) == ids
    assert await fleet.told() == [
        f"2 jobs are gone: their records were removed from Redis ({', '.join(watch.status.lost.ids)})"
    ]


async def test_a_spoilt_mark_and_a_folder_that_is_gone(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    watch = fleet.watch()
    await fleet.submit(2)
    await watch.look()
    for field in ("looks", "forgotten", "told"):
        await fleet.r.hset(fleet.keys.jobs_mark, field, "spoilt")
    await fleet.r.set(fleet.keys.loss(fleet.settings.fleet), "[]")
    shutil.rmtree(Layout(fleet.folder).state)
    for _ in range(3):
        await fleet.submit(1)
        await watch.look()
    assert watch.status.lost is None
    assert caplog.text.count("cannot write") == 1
    await fleet.r.flushall()
    await watch.look()
    assert await fleet.told() == ["5 jobs are gone: Redis came back empty"]


async def test_a_job_that_is_submitted_again_is_none_that_is_gone(fleet: Fleet) -> None:
    """Who had no answer asks again under the same id."""
    watch, wanted = fleet.watch(), job(id="the-same")
    assert (await fleet.queue.submit(wanted)).created
    await watch.look()
    for _ in range(3):
        assert not (await fleet.queue.submit(wanted)).created
    others = [wanted, job(), wanted]
    assert [s.created for s in await fleet.queue.submit_many(others)] == [False, True, False]
    await watch.look()
    assert await fleet.told() == []
    assert await fleet.r.get(fleet.keys.jobs_seq) == "2"


async def test_none_is_older_than_time_itself(fleet: Fleet) -> None:
    sent = await fleet.queue.submit(job())
    await fleet.queue.cancel(sent.job_id)
    assert await fleet.queue.purge([JobStatus.CANCELLED], older_than_s=100 * 366 * 86_400) == 0
    assert (await fleet.queue.get(sent.job_id)).status is JobStatus.CANCELLED
