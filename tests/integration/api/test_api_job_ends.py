"""Every end of a job, by real workers, as a follower sees it over SSE and over WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import msgspec
import pytest

from emp_orch.settings import save
from emp_orch.store.queue.submit import Queue
from support.http.sse import stream
from support.http.stack import Stack, eventually
from support.worker.processes import KEYS, Bench, bench

Told = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Bench]]:
    """An API, a worker for `simulation`, and one for `slow` that gives each run 0.7 s."""
    stack = Stack(tmp_path_factory.mktemp("ends"))
    stack.settings = msgspec.structs.replace(stack.settings, prefix=KEYS.prefix)
    save(stack.layout, stack.settings)
    with stack.running():
        asyncio.run(stack.up())
        with bench(stack.layout.root, stack.redis) as made:  # type: ignore[arg-type]
            _, port = made.simulation()
            made.worker(f"simulation=simulation@http://127.0.0.1:{port}")
            _, port = made.simulation()
            made.worker(f"slow=simulation@http://127.0.0.1:{port}", gpu=1, options=("--job-timeout", "0.7"))
            made.ready(0)
            made.ready(1)
            yield stack, made


@pytest.fixture
async def api(stage: tuple[Stack, Bench]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=stage[0].api) as session:
        yield session


@pytest.fixture
async def queue(stage: tuple[Stack, Bench]) -> AsyncIterator[Queue]:
    r = stage[0].client()
    yield Queue(r, KEYS)
    await r.aclose()


async def submit(api: aiohttp.ClientSession, service: str, **job: Any) -> str:
    async with api.post("/api/jobs", json={"service": service, **job}) as response:
        assert response.status == 201, await response.text()
        job_id: str = (await response.json())["job_id"]
        return job_id


async def job_of(api: aiohttp.ClientSession, job_id: str) -> dict[str, Any]:
    async with api.get(f"/api/jobs/{job_id}") as response:
        found: dict[str, Any] = (await response.json())["data"]
        return found


async def by_sse(url: str, job_id: str, told: Told | None = None, /, **headers: str) -> Told:
    """All that the stream tells, until it ends by itself; in `told` as it comes."""
    told = [] if told is None else told
    async with stream(url, f"/api/jobs/{job_id}/progress", **headers) as reader:
        try:
            while True:
                event = await reader.next()
                told.append((event.event, json.loads(event.data)))
        except EOFError:
            return told


async def by_websocket(url: str, job_id: str, told: Told) -> Told:
    """All that is told of a job, until it has ended; in `told` as it comes."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws/client/c") as ws:
        await ws.send_json({"type": "subscribe_progress", "job_id": job_id})
        async with asyncio.timeout(30):
            while not told or told[-1][0] != "job" or told[-1][1]["finished_at"] is None:
                found = await ws.receive_json()
                told.append((found["type"], found["data"]))
        # It is watched no longer, and the connection goes on.
        await ws.send_json({"type": "heartbeat"})
        assert (await ws.receive_json())["type"] == "heartbeat_ack"
    return told


def events(told: Told) -> list[str]:
    return [event for event, _ in told if event not in ("job", "job_progress")]


async def followed(
    stack: Stack, job_id: str, act: Callable[[], Awaitable[None]], *, when: Callable[[], Awaitable[Any]] | None = None
) -> tuple[Told, Told]:
    """What both followers were told; `act` is done once both were told what the job was (and `when` holds)."""
    heard: tuple[Told, Told] = ([], [])
    async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
        sse = tasks.create_task(by_sse(stack.api, job_id, heard[0]))
        ws = tasks.create_task(by_websocket(stack.api, job_id, heard[1]))

        async def both() -> bool:
            return all(heard)

        await eventually(both, "both listen")
        if when is not None:
            await eventually(when, "the job is where it should be")
        await act()
    return sse.result(), ws.result()


async def nothing() -> None:
    """The job ends by itself."""


async def test_completed(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "simulation", payload={"steps": 200})
    for told in await followed(stage[0], job_id, nothing):
        assert told[0][0] == "job" and told[-1][0] == "job"
        assert events(told)[-1:] == ["job_completed"]
        last = told[-1][1]
        assert last["status"] == "completed" and last["progress"] == 1.0
        assert last["result"]["outputs"][0]["url"].startswith(f"/api/jobs/{job_id}/artifacts/")
    said = [data["progress"]["fraction"] for event, data in told if event == "job_progress"]
    assert said == sorted(said)


async def test_whoever_comes_late_is_told_what_was_said(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "simulation", payload={"steps": 200})

    async def ended() -> bool:
        return (await job_of(api, job_id))["status"] == "completed"

    await eventually(ended, "it ends")
    told = await by_sse(stage[0].api, job_id)
    said = [data["progress"]["fraction"] for event, data in told if event == "job_progress"]
    assert len(said) > 1 and said == sorted(said)
    assert [event for event, _ in told] == ["job", *["job_progress"] * len(said), "job"]
    async with stream(stage[0].api, f"/api/jobs/{job_id}/progress") as reader:
        await reader.next()
        second = await reader.next()
    resumed = await by_sse(stage[0].api, job_id, **{"Last-Event-ID": second.id})
    assert [event for event, _ in resumed] == ["job", *["job_progress"] * (len(said) - 1), "job"]


async def test_an_event_source_that_was_told_the_end_stops(
    stage: tuple[Stack, Bench], api: aiohttp.ClientSession
) -> None:
    job_id = await submit(api, "nowhere")
    await cancel(api, job_id)
    path = f"/api/jobs/{job_id}/progress"
    async with stream(stage[0].api, path) as reader:
        last = await reader.next()
    assert last.event == "job" and last.id
    async with api.get(path, headers={"Last-Event-ID": last.id}) as response:
        assert (response.status, await response.text()) == (204, "")
    # Whoever was told that it ended, but not how, is told.
    async with stream(stage[0].api, "/api/events/monitor") as reader:
        position = (await reader.until(lambda e, _: e.event == "full_state_snapshot"))[0].id
    assert [event for event, _ in await by_sse(stage[0].api, job_id, **{"Last-Event-ID": position})] == ["job"]
    async with api.post(f"/api/jobs/{job_id}/retry") as response:
        assert response.status == 200
    async with stream(stage[0].api, path, **{"Last-Event-ID": last.id}) as reader:
        assert json.loads((await reader.next()).data)["status"] == "pending"


async def test_failed(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "simulation", payload={"fail": "out of paint", "steps": 100}, max_retries=0)
    for told in await followed(stage[0], job_id, nothing):
        assert events(told)[-1:] == ["job_failed"]
        assert told[-1][1]["status"] == "failed" and "out of paint" in told[-1][1]["error"]["message"]


async def test_cancelled_while_it_waits(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "nowhere")
    for told in await followed(stage[0], job_id, lambda: cancel(api, job_id)):
        assert [event for event, _ in told] == ["job", "job_cancelled", "job"]
        assert (told[0][1]["status"], told[-1][1]["status"]) == ("pending", "cancelled")


async def cancel(api: aiohttp.ClientSession, job_id: str) -> None:
    async with api.post(f"/api/jobs/{job_id}/cancel") as response:
        assert response.status == 200, await response.text()


async def test_cancelled_while_it_runs(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "simulation", payload={"steps": 1000})

    async def running() -> bool:
        return (await job_of(api, job_id))["status"] == "in_progress"

    for told in await followed(stage[0], job_id, lambda: cancel(api, job_id), when=running):
        assert events(told)[-2:] == ["job_cancel_requested", "job_cancelled"]
        assert told[-1][1]["status"] == "cancelled"


async def test_timeout(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    job_id = await submit(api, "slow", payload={"steps": 1000}, max_retries=0)
    for told in await followed(stage[0], job_id, nothing):
        assert events(told)[-1:] == ["job_timeout"]
        assert told[-1][1]["status"] == "timeout"


async def test_unworkable_and_back(stage: tuple[Stack, Bench], api: aiohttp.ClientSession, queue: Queue) -> None:
    job_id = await submit(api, "nobody-has-it")
    lane = (await job_of(api, job_id))["lane"]

    async def judge() -> None:
        assert await queue.judge(lane, "no worker of the fleet could run it") == 1
        found = await job_of(api, job_id)
        assert (found["status"], found["why"]) == ("unworkable", "no worker of the fleet could run it")
        assert await queue.judge(lane, "") == 1
        await cancel(api, job_id)

    for told in await followed(stage[0], job_id, judge):
        assert events(told) == ["lane_unworkable", "lane_workable", "job_cancelled"]
        verdict = next(data for event, data in told if event == "lane_unworkable")
        assert (verdict["lane"], verdict["jobs"]) == (lane, 1) and verdict["reason"]
        assert told[-1][1]["status"] == "cancelled"


async def test_batches_and_other_lanes_disturb_no_follower(
    stage: tuple[Stack, Bench], api: aiohttp.ClientSession, queue: Queue
) -> None:
    job_id = await submit(api, "nowhere")

    async def act() -> None:
        other = [{"service": "elsewhere", "id": f"other-{n}"} for n in range(3)]
        async with api.post("/api/jobs", json=other) as response:
            assert response.status == 201
        await queue.judge((await job_of(api, "other-0"))["lane"], "nobody")
        await cancel(api, job_id)

    for told in await followed(stage[0], job_id, act):
        assert [event for event, _ in told] == ["job", "job_cancelled", "job"]


async def test_a_damaged_job_ends_no_socket(stage: tuple[Stack, Bench], api: aiohttp.ClientSession) -> None:
    good, bad = await submit(api, "nowhere"), await submit(api, "nowhere")
    r = stage[0].client()
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{stage[0].api}/ws/client/c") as ws:
        for job_id in (good, bad):
            await ws.send_json({"type": "subscribe_progress", "job_id": job_id})
            assert (await ws.receive_json())["type"] == "job"
        text = await r.hget(KEYS.jobs, bad)
        assert isinstance(text, str)
        await r.hset(KEYS.jobs, bad, text.rpartition("{")[0] + "{")
        await cancel(api, bad)
        async with asyncio.timeout(20):
            told = [await ws.receive_json() for _ in range(2)]
            assert [t["type"] for t in told] == ["job_cancelled", "error"]
            assert "damaged" in told[1]["data"]["error"] and told[1]["data"]["job_id"] == bad
            await cancel(api, good)
            told = [await ws.receive_json() for _ in range(2)]
        assert [t["type"] for t in told] == ["job_cancelled", "job"]
    await r.aclose()
