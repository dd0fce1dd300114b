"""What forgotten jobs left is deleted: all of it, once, and nothing that is in use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from emp_orch.control.jobs.retention import ASSETS_EVERY_MS, AT_ONCE, EVERY_MS, Retention
from emp_orch.fleet.model.fleet import InputsSpec, JobsSpec
from emp_orch.jobs.document.states import ENDED
from emp_orch.store.artifacts.assets import Assets
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.submit import NoSuchJob, Queue
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, job, running_server

KEYS = Keys("t:")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server("redis", tmp_path_factory.mktemp("redis")) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    await made.flushall()
    yield made
    await made.aclose()


def retention(r: Client, folder: Path) -> Retention:
    return Retention(r, KEYS, Queue(r, KEYS), Artifacts(folder.as_uri()))


async def forgotten(r: Client, folder: Path, *ids: str) -> None:
    for job_id in ids:
        (folder / job_id / "1-run").mkdir(parents=True)
        (folder / job_id / "1-run" / "x.png").write_bytes(b"x")
    await r.rpush(KEYS.jobs_forgotten, *ids)


async def test_an_id_that_names_no_folder_holds_up_nobody(r: Client, tmp_path: Path) -> None:
    await r.rpush(KEYS.jobs_forgotten, "../somebody")
    await forgotten(r, tmp_path, "a", "b")
    await retention(r, tmp_path).delete_artifacts()
    assert not list(tmp_path.iterdir()) and not await r.exists(KEYS.jobs_forgotten)


async def test_a_folder_that_cannot_be_deleted_holds_up_nobody_and_is_tried_again(
    r: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    await forgotten(r, root, "stuck", *(f"j{n}" for n in range(2 * AT_ONCE)))
    monkeypatch.chdir(root / "stuck")  # the store refuses to delete where we are
    await retention(r, root).delete_artifacts()
    assert [p.name for p in root.iterdir()] == ["stuck"]
    assert await r.lrange(KEYS.jobs_forgotten, 0, -1) == ["stuck"]
    monkeypatch.chdir(tmp_path)
    await retention(r, root).delete_artifacts()
    assert not await r.exists(KEYS.jobs_forgotten)


async def test_two_who_delete_leave_nothing(r: Client, tmp_path: Path) -> None:
    """A reconciler that is led no more may still be at it."""
    await forgotten(r, tmp_path, *(f"j{n}" for n in range(5 * AT_ONCE)))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(2):
            tasks.create_task(retention(r, tmp_path).delete_artifacts())
    assert not list(tmp_path.iterdir()) and not await r.exists(KEYS.jobs_forgotten)


async def test_what_an_earlier_job_of_the_same_id_left_goes_with_the_later_one(r: Client, tmp_path: Path) -> None:
    queue = Queue(r, KEYS)
    await forgotten(r, tmp_path, "again")
    await queue.submit(job(id="again"))
    await retention(r, tmp_path).delete_artifacts()
    assert (tmp_path / "again").exists(), "it is in use"
    await queue.cancel("again")
    await queue.purge(ENDED)
    await retention(r, tmp_path).delete_artifacts()
    assert not (tmp_path / "again").exists()


async def test_what_the_file_says_is_what_workers_keep(r: Client, tmp_path: Path) -> None:
    spec = JobsSpec(artifacts="", keep_count=30_000, keep_age_s=6_000.0, lease_s=30.0)
    tended = retention(r, tmp_path)
    queue = Queue(r, KEYS)
    await queue.submit(job(id="old"))
    await queue.cancel("old")
    now = await time_ms(r)
    await tended.tend(spec, now)
    assert await r.get(KEYS.jobs_keep) == "30000"
    await r.hset(KEYS.job("old"), "finished_ms", now - 6_001_000)
    await tended.tend(spec, now + EVERY_MS)
    assert (await queue.get("old")).id == "old", "all that ended is not looked at each time"
    await r.flushall()
    await queue.submit(job(id="old"))
    await queue.cancel("old")
    await r.hset(KEYS.job("old"), "finished_ms", now - 6_001_000)
    await tended.tend(structs.replace(spec, keep_age_s=5_000.0), now + 2 * EVERY_MS)
    assert await r.get(KEYS.jobs_keep) == "30000"
    with pytest.raises(NoSuchJob):
        await queue.get("old")


async def test_an_uploaded_file_goes_when_its_time_is_over(r: Client, tmp_path: Path) -> None:
    store = Artifacts(tmp_path.as_uri())
    kept = await Assets(store, r, KEYS).save("a.png", chunks(b"x"), most=10)
    tended = Retention(r, KEYS, Queue(r, KEYS), store)
    rules = InputsSpec(hosts=(), keep_s=60.0, max_bytes=10)
    now = await time_ms(r)
    await tended.expire_assets(rules, now + 59_000)
    assert (tmp_path / ".assets" / kept.asset.removeprefix("sha256:")).exists()
    await tended.expire_assets(None, now + 2 * ASSETS_EVERY_MS + 61_000)
    await tended.expire_assets(rules, now + 2 * ASSETS_EVERY_MS + 61_000)
    assert not list((tmp_path / ".assets").iterdir()) and not await r.exists(KEYS.assets, KEYS.assets_moving)


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for chunk in data:
        yield chunk
