"""Assets on a folder and in a far store, on Redis and on Valkey: kept once, named, and gone when nobody needs them."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_orch.jobs.document.inputs import Content
from emp_orch.jobs.document.model import InputSource
from emp_orch.jobs.document.states import ENDED
from emp_orch.jobs.document.submission import BadSubmission, Submission
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.settings import InputLimits
from emp_orch.store.artifacts.asset_retention import QUEUED_MS, AssetRetention
from emp_orch.store.artifacts.assets import MOVING_MS, Assets, NoSuchAsset, TooLarge
from emp_orch.store.artifacts.job_inputs import InputsGone, JobInputs
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotRead, local_url
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys

KEYS = Keys("t:")
HOUR_S = 3600.0
LIMITS = InputLimits(hosts=("images.example.org",), max_bytes=1000)


async def chunks_of(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    if request.param == "file":
        return Artifacts(local_url(tmp_path / "a [b] c"))
    return Artifacts(f"memory://{secrets.token_hex(4)}/store")


@pytest.fixture
def assets(store: Artifacts, r: Client) -> Assets:
    return Assets(store, r, KEYS)


@pytest.fixture
def retention(store: Artifacts, r: Client) -> AssetRetention:
    return AssetRetention(store, r, KEYS)


def files_of(store: Artifacts) -> list[str]:
    store._fs.invalidate_cache()
    return sorted(path.rpartition("/")[2] for path in store._fs.find(store._root))


async def content(assets: Assets, asset: str, **span: int) -> bytes:
    return b"".join([chunk async for chunk in assets.read(asset, **span)])


async def age(r: Client, asset: str, seconds: float) -> None:
    """Let it have been named so long ago."""
    await r.zadd(KEYS.assets, {asset: await time_ms(r) - int(seconds * 1000)}, xx=True)


def job(job_id: str | None = None, **inputs: InputSource | Content) -> Submission:
    return Submission(id=job_id, service="s", payload={}, requirements=Requirements(service="s"), inputs=dict(inputs))


async def test_what_was_given_is_read_back_and_kept_once(store: Artifacts, assets: Assets) -> None:
    data = secrets.token_bytes(600_000)
    first = await assets.save("a.png", chunks_of(data), most=1_000_000)
    again = await assets.save("b.png", chunks_of(data), most=1_000_000)
    assert (first.asset, first.size, first.created) == (digest_of(data), len(data), True)
    assert (again.asset, again.created) == (first.asset, False)
    assert files_of(store) == [first.asset.removeprefix("sha256:")]
    assert await content(assets, first.asset) == data
    assert await content(assets, first.asset, start=5, stop=9) == data[5:9]


async def test_many_who_give_the_same_at_once_keep_it_once(store: Artifacts, assets: Assets) -> None:
    data = secrets.token_bytes(300_000)
    kept = await asyncio.gather(*(assets.save("a", chunks_of(data), most=10**6) for _ in range(8)))
    assert sum(k.created for k in kept) == 1 and {k.asset for k in kept} == {digest_of(data)}
    assert files_of(store) == [digest_of(data).removeprefix("sha256:")]


async def test_a_file_that_is_too_large_or_breaks_off_leaves_nothing(store: Artifacts, assets: Assets) -> None:
    with pytest.raises(TooLarge, match=r"big\.png is larger than 1000 bytes"):
        await assets.save("big.png", chunks_of(bytes(1001)), most=1000)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await assets.save("a.png", breaks(), most=1000)
    assert files_of(store) == []


@pytest.mark.parametrize("asset", ["sha256:" + "0" * 64, "sha256:../../x", "x"])
async def test_what_is_not_there_is_not_read(assets: Assets, asset: str) -> None:
    with pytest.raises(NoSuchAsset):
        await content(assets, asset)


async def test_a_damaged_file_is_noticed(store: Artifacts, assets: Assets) -> None:
    kept = await assets.save("a", chunks_of(b"good"), most=10)
    store._fs.pipe_file(assets.path(kept.asset), b"evil")
    with pytest.raises(CannotRead, match="damaged"):
        await content(assets, kept.asset)


async def test_a_file_that_somebody_deleted_is_written_anew(store: Artifacts, assets: Assets) -> None:
    kept = await assets.save("a", chunks_of(b"good"), most=10)
    store.remove(assets.path(kept.asset))
    with pytest.raises(InputsGone, match=r"inputs\.photo: sha256:"):
        await JobInputs(assets, LIMITS).placed([job(photo=InputSource(asset=kept.asset))])
    assert (await assets.save("a", chunks_of(b"good"), most=10)).created
    assert await content(assets, kept.asset) == b"good"


async def test_what_nobody_needs_goes_after_its_time(
    r: Client, store: Artifacts, assets: Assets, retention: AssetRetention
) -> None:
    old = await assets.save("a", chunks_of(b"old"), most=10)
    new = await assets.save("b", chunks_of(b"new"), most=10)
    await age(r, old.asset, HOUR_S + 1)
    assert await retention.expire(HOUR_S, await time_ms(r)) == 1
    assert files_of(store) == [new.asset.removeprefix("sha256:")]
    assert not await assets.touch(old.asset) and await assets.touch(new.asset)
    again = await assets.save("a", chunks_of(b"old"), most=10)
    assert again.created and await content(assets, again.asset) == b"old"


async def test_an_unfinished_job_keeps_its_assets(r: Client, assets: Assets, retention: AssetRetention) -> None:
    queue, inputs = Queue(r, KEYS), JobInputs(assets, LIMITS)
    kept = await assets.save("a", chunks_of(b"x"), most=10)
    (asked,) = await inputs.placed([job("j", photo=InputSource(asset=kept.asset))])
    await queue.submit(asked)
    await age(r, kept.asset, 2 * HOUR_S)
    assert await retention.expire(HOUR_S, await time_ms(r)) == 0
    assert (await queue.get("j")).inputs == {"photo": InputSource(asset=kept.asset, size=1)}
    await queue.cancel("j")
    assert await retention.expire(HOUR_S, await time_ms(r)) == 0, "it was needed a moment ago"
    await age(r, kept.asset, 2 * HOUR_S)
    assert await retention.expire(HOUR_S, await time_ms(r)) == 1
    await queue.purge(ENDED)
    assert not await r.exists(KEYS.jobs_inputs)


async def test_a_job_that_was_never_queued_keeps_nothing(r: Client, assets: Assets, retention: AssetRetention) -> None:
    kept = await assets.save("a", chunks_of(b"x"), most=10)
    assert await assets.named("never", [kept.asset]) == []
    await age(r, kept.asset, 2 * HOUR_S)
    assert await retention.expire(HOUR_S, await time_ms(r)) == 0, "it may be on its way"
    await r.hset(KEYS.jobs_inputs, "never", f"{await time_ms(r) - QUEUED_MS - 1} {kept.asset}")
    await age(r, kept.asset, 2 * HOUR_S)
    assert await retention.expire(HOUR_S, await time_ms(r)) == 1
    assert not await r.exists(KEYS.jobs_inputs)


async def test_another_job_of_the_same_id_takes_nothing_from_the_first(r: Client, assets: Assets) -> None:
    one = await assets.save("a", chunks_of(b"1"), most=10)
    two = await assets.save("a", chunks_of(b"2"), most=10)
    await assets.named("j", [one.asset])
    await assets.named("j", [two.asset, one.asset])
    assert str(await r.hget(KEYS.jobs_inputs, "j")).split(" ")[1:] == [one.asset, two.asset]


async def test_giving_waits_while_it_is_deleted_and_takes_over_from_the_dead(
    r: Client, assets: Assets, retention: AssetRetention
) -> None:
    asset = digest_of(b"x")
    now = await time_ms(r)
    await r.zadd(KEYS.assets_moving, {asset: now})
    giving = asyncio.create_task(assets.save("a", chunks_of(b"x"), most=10))
    await asyncio.sleep(0.2)
    assert not giving.done()
    await r.zrem(KEYS.assets_moving, asset)
    assert (await giving).created
    other = digest_of(b"y")
    await r.zadd(KEYS.assets_moving, {other: now - MOVING_MS - 1})
    assert (await assets.save("a", chunks_of(b"y"), most=10)).created
    await r.zadd(KEYS.assets_moving, {digest_of(b"z"): now - MOVING_MS - 1, "../../x": 1})
    await retention.expire(HOUR_S, now)
    assert not await r.exists(KEYS.assets_moving)


async def test_giving_and_deleting_at_once_lose_nothing(r: Client, assets: Assets, retention: AssetRetention) -> None:
    async def expire() -> None:
        for _ in range(20):
            await age(r, digest_of(b"x"), 2 * HOUR_S)
            await retention.expire(HOUR_S, await time_ms(r))

    async def give() -> None:
        for _ in range(20):
            await assets.save("a", chunks_of(b"x"), most=10)

    await asyncio.gather(expire(), give(), expire(), give())
    there = await assets.touch(digest_of(b"x"))
    if there:
        assert await content(assets, digest_of(b"x")) == b"x"
    assert not await r.exists(KEYS.assets_moving)


async def test_what_a_job_brings_becomes_an_asset(r: Client, assets: Assets) -> None:
    (asked,) = await JobInputs(assets, LIMITS).placed([job(photo=Content(data=b"hi"))])
    assert asked.inputs == {"photo": InputSource(asset=digest_of(b"hi"), size=2)}
    assert asked.id is not None and await r.hexists(KEYS.jobs_inputs, asked.id)
    assert await content(assets, digest_of(b"hi")) == b"hi"


async def test_a_job_that_names_what_is_gone_is_refused(assets: Assets) -> None:
    gone = InputSource(asset=digest_of(b"gone"))
    with pytest.raises(InputsGone) as caught:
        await JobInputs(assets, LIMITS).placed([job(a=gone), job(b=gone, c=Content(data=b"x"))])
    assert caught.value.message == f"no such asset: jobs[0].inputs.a: {gone.asset}; jobs[1].inputs.b: {gone.asset}"


async def test_a_url_elsewhere_is_refused(assets: Assets) -> None:
    inputs = JobInputs(assets, LIMITS)
    good = InputSource(url="https://images.example.org/a.png")
    assert (await inputs.placed([job(a=good)]))[0].inputs == {"a": good}
    with pytest.raises(BadSubmission, match=r"inputs.a: evil.org is not one of jobs.inputs.hosts"):
        await inputs.placed([job(a=InputSource(url="https://evil.org/a.png"))])
    with pytest.raises(BadSubmission, match=r"no URL may be named: add evil.org to jobs.inputs.hosts"):
        none = InputLimits(hosts=(), max_bytes=9)
        await JobInputs(assets, none).placed([job(a=InputSource(url="https://evil.org/a.png"))])
    with pytest.raises(BadSubmission, match=r"`emp apply` again"):
        await JobInputs(assets, None).placed([job(a=good)])
