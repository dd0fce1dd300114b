"""Lists of jobs, filters, lanes, explanations, purging and metrics over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.jobs.document.submission import MAX_JOB_BYTES
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.keys import Keys
from support.http.stack import Producer, Stack, fleet_of


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("queue"))
    with made.running():
        asyncio.run(made.up())
        yield made


@pytest.fixture
async def producer(stack: Stack) -> AsyncIterator[Producer]:
    """Of an empty Redis, but for the stream of events, which the API follows."""
    r = stack.client()
    for key in await r.keys():
        if key != "events":
            await r.delete(key)
    yield Producer(r, Keys())
    await r.aclose()


@pytest.fixture
async def api(stack: Stack, producer: Producer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=stack.api) as session:
        yield session


async def post(api: aiohttp.ClientSession, path: str, status: int, body: Any, **headers: str) -> dict[str, Any]:
    # As a file: aiohttp warns of large bodies given as bytes.
    data, json_type = io.BytesIO(json.dumps(body).encode()), {"Content-Type": "application/json"}
    async with api.post(path, data=data, headers={**json_type, **headers}) as response:
        found: dict[str, Any] = await response.json()
        assert response.status == status, found
        assert found["success"] is (status < 207)
        return found


async def get(api: aiohttp.ClientSession, path: str, status: int = 200) -> Any:
    async with api.get(path) as response:
        found = await response.json()
        assert response.status == status, found
        return found["data"] if status == 200 else found["error"]


async def test_a_list_of_jobs(api: aiohttp.ClientSession) -> None:
    jobs = [{"service": "simulation", "payload": {"n": n}, "id": f"j{n}"} for n in range(3)]
    made = await post(api, "/api/jobs", 201, [*jobs, {"service": "comfyui"}])
    assert made["job_ids"][:3] == ["j0", "j1", "j2"] and len(made["job_ids"]) == 4
    assert [(d["created"], d["same"], d["conflict"]) for d in made["data"]] == [(True, True, False)] * 4
    again = await post(api, "/api/jobs", 201, jobs)
    assert [d["created"] for d in again["data"]] == [False] * 3
    mixed = await post(api, "/api/jobs", 207, [{"service": "other", "id": "j0"}, {"service": "simulation", "id": "j9"}])
    assert [(d["job_id"], d["conflict"], d["created"]) for d in mixed["data"]] == [
        ("j0", True, False),
        ("j9", False, True),
    ]
    assert "1 of 2 jobs were not queued" in mixed["error"]
    listed = await get(api, "/api/jobs?limit=1&offset=4")
    assert (listed["total"], [j["job_id"] for j in listed["jobs"]]) == (5, ["j0"])
    assert (await get(api, "/api/jobs/j0"))["service"] == "simulation", "a conflict changes nothing"


async def test_nothing_of_a_list_is_accepted_unless_all_is_good(api: aiohttp.ClientSession) -> None:
    bad = [{"service": "simulation"}, {"service": ""}, 7, {"service": "simulation", "colour": 1}]
    error = (await post(api, "/api/jobs", 400, bad))["error"]
    for words in ("jobs[1].service:", "jobs[2]: expected an object", "jobs[3].colour:"):
        assert words in error
    assert "jobs[0]" not in error
    too_many = [{"service": "simulation"}] * 10_001
    assert "1 to 10000" in (await post(api, "/api/jobs", 400, too_many))["error"]
    assert (await get(api, "/api/jobs"))["total"] == 0


async def test_ten_thousand_jobs_in_one_call(api: aiohttp.ClientSession) -> None:
    jobs = [{"service": "simulation", "payload": {"text": "x" * 600, "n": n}} for n in range(10_000)]
    made = await post(api, "/api/jobs", 201, jobs)
    assert len(set(made["job_ids"])) == 10_000
    assert (await get(api, "/api/jobs?limit=1"))["total"] == 10_000
    (lane,) = (await get(api, "/api/lanes"))["lanes"]
    assert lane["depth"] == 10_000 and lane["head"] == made["job_ids"][0]


async def test_idempotency_keys(api: aiohttp.ClientSession) -> None:
    job = {"service": "simulation", "payload": {"n": 1}}
    first = await post(api, "/api/jobs", 201, job, **{"Idempotency-Key": "order 4711"})
    again = await post(api, "/api/jobs", 200, {**job, "idempotency_key": "order 4711"})
    assert again["job_id"] == first["job_id"]
    other = {**job, "payload": {"n": 2}}
    assert "another job" in (await post(api, "/api/jobs", 409, other, **{"Idempotency-Key": "order 4711"}))["error"]
    contradiction = {**job, "idempotency_key": "a"}
    assert "contradicts" in (await post(api, "/api/jobs", 400, contradiction, **{"Idempotency-Key": "b"}))["error"]
    assert "in a list" in (await post(api, "/api/jobs", 400, [job], **{"Idempotency-Key": "b"}))["error"]
    assert "idempotency_key" in (await post(api, "/api/jobs", 400, job, **{"Idempotency-Key": "x" * 300}))["error"]
    assert (await get(api, "/api/jobs"))["total"] == 1


async def test_filters(api: aiohttp.ClientSession, producer: Producer) -> None:
    jobs = [{"service": s, "id": f"{s}-{n}"} for n in range(3) for s in ("simulation", "comfyui")]
    await post(api, "/api/jobs", 201, jobs)
    claims = Claims(producer.redis, producer.keys, "box-worker-0", lease_s=30)
    assert isinstance(await claims.claim_or_wait({"services": ["comfyui"]}), Claimed)
    await claims.aclose()

    async def ids(query: str) -> list[str]:
        found = await get(api, f"/api/jobs?{query}")
        assert found["total"] == len(found["jobs"])
        return [j["job_id"] for j in found["jobs"]]

    assert await ids("service=comfyui") == ["comfyui-2", "comfyui-1", "comfyui-0"]
    assert await ids("service=comfyui&status=pending") == ["comfyui-2", "comfyui-1"]
    assert await ids("worker=box-worker-0") == ["comfyui-0"]
    assert await ids("worker=box-worker-1") == []
    lane = (await get(api, "/api/jobs/simulation-0"))["lane"]
    assert await ids(f"lane={lane}") == ["simulation-2", "simulation-1", "simulation-0"]
    assert await ids(f"lane={lane}&status=assigned") == []
    for bad, words in (("status=done", "status: expected one of pending"), ("worker=%0a", "worker:"), ("limit=0", "1")):
        assert words in await get(api, f"/api/jobs?{bad}", 400)


async def reported(producer: Producer) -> None:
    """A fleet of two machines with two slots each; one worker idle, one busy, one paused, one silent."""
    fleet = fleet_of("one", "two")
    await producer.apply(fleet)
    for machine in ("one", "two"):
        await producer.machine(fleet, machine)
    await producer.worker("one", 0)
    await producer.worker("one", 1, status=WorkerStatus.BUSY, job="some-job")
    await producer.worker("two", 0, status=WorkerStatus.PAUSED)


async def test_lanes_and_who_could_serve_them(api: aiohttp.ClientSession, producer: Producer) -> None:
    assert await get(api, "/api/lanes") == {"lanes": [], "total": 0, "jobs": 0, "limit": 100, "offset": 0}
    await reported(producer)
    await post(
        api, "/api/jobs", 201, [{"service": "simulation"}, {"service": "simulation", "priority": 5, "id": "first"}]
    )
    await post(api, "/api/jobs", 201, {"service": "video", "requirements": {"models": ["flux"]}})
    found = await get(api, "/api/lanes")
    assert (found["total"], found["jobs"]) == (2, 3)
    served, unserved = found["lanes"]
    assert (served["service"], served["depth"], served["head"]) == ("simulation", 2, "first")
    assert 0 <= served["oldest_wait_s"] < 30
    assert served["workers"] == {"able": 3, "idle": 1, "busy": 1, "down": 1, "silent": 1}
    assert unserved["requirements"] == {"service": "video", "models": ["flux"]}
    assert unserved["workers"] == {"able": 0, "idle": 0, "busy": 0, "down": 0, "silent": 0}
    assert unserved["unworkable"] is None
    await Queue(producer.redis, producer.keys).judge(unserved["lane"], "nobody has video")
    page = await get(api, "/api/lanes?limit=1&offset=1")
    assert (page["total"], page["lanes"][0]["unworkable"]) == (2, "nobody has video")


async def test_a_job_explained(api: aiohttp.ClientSession, producer: Producer) -> None:
    await reported(producer)
    await post(api, "/api/jobs", 201, [{"service": "simulation", "id": "can"}, {"service": "video", "id": "cannot"}])
    can = await get(api, "/api/jobs/can/explain")
    assert {w["worker_id"]: w["standing"] for w in can["workers"]} == {
        "one-worker-0": "idle",
        "one-worker-1": "busy",
        "two-worker-0": "paused",
        "two-worker-1": "silent",
    }
    assert can["why"] == "waits to be claimed: 3 workers can run it, 1 idle"
    assert can["fleet"] == "workable: 3 workers of the fleet can run it"
    cannot = await get(api, "/api/jobs/cannot/explain")
    assert {w["standing"] for w in cannot["workers"]} == {"unable"}
    assert all("service 'video' is needed" in w["reasons"][0] for w in cannot["workers"])
    assert cannot["fleet"].startswith("unworkable: no worker of the fleet could run it")
    assert "service 'video' is needed" in (await get(api, "/api/jobs/cannot"))["why"]
    await producer.redis.zadd(producer.keys.workers_seen, {"one-worker-0": 1})
    can = await get(api, "/api/jobs/can/explain")
    assert can["workers"][0]["standing"] == "offline"
    await post(api, "/api/jobs/can/cancel", 200, {})
    ended = await get(api, "/api/jobs/can/explain")
    assert (ended["why"], ended["fleet"], ended["workers"]) == ("it is cancelled", "", [])
    assert "no job 'none'" in await get(api, "/api/jobs/none/explain", 404)


async def test_without_a_fleet_only_reports_explain(api: aiohttp.ClientSession, producer: Producer) -> None:
    await post(api, "/api/jobs", 201, {"service": "simulation", "id": "lonely"})
    found = await get(api, "/api/jobs/lonely/explain")
    assert "no worker reports" in found["why"] and found["fleet"] == "" and found["workers"] == []


async def test_purge(api: aiohttp.ClientSession) -> None:
    await post(api, "/api/jobs", 201, [{"service": "simulation", "id": f"j{n}"} for n in range(5)])
    for n in range(4):
        await post(api, f"/api/jobs/j{n}/cancel", 200, {})
    for body, words in (
        ({"statuses": ["pending"], "keep": 0}, "have not ended"),
        ({"statuses": ["cancelled"]}, "give one of the two"),
        ({"statuses": ["cancelled"], "keep": 1, "older_than_s": 1}, "give one of the two"),
        ({"statuses": [], "keep": 1}, "statuses"),
        ({"statuses": ["done"], "keep": 1}, "statuses"),
        ({"statuses": ["cancelled"], "keep": -1}, "keep"),
        ({"statuses": ["cancelled"], "older": 1}, "older"),
        ({"statuses": ["cancelled"], "older_than_s": 1e308}, "older_than_s"),
        ({"statuses": ["cancelled"], "keep": 10**18}, "keep"),
        ({"statuses": ["cancelled"], "keep": 10**30}, "keep"),
    ):
        assert words in (await post(api, "/api/jobs/purge", 400, body))["error"]
    assert (await post(api, "/api/jobs/purge", 200, {"statuses": ["cancelled"], "older_than_s": 3600}))["data"] == {
        "purged": 0
    }
    assert (await post(api, "/api/jobs/purge", 200, {"statuses": ["cancelled"], "keep": 1}))["data"] == {"purged": 3}
    assert [j["job_id"] for j in (await get(api, "/api/jobs"))["jobs"]] == ["j4", "j3"]


async def samples(api: aiohttp.ClientSession) -> dict[tuple[str, ...], float]:
    async with api.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = list(text_string_to_metric_families(await response.text()))
    return {(s.name, *(v for _, v in sorted(s.labels.items()))): s.value for f in families for s in f.samples}


async def test_metrics_of_lanes(api: aiohttp.ClientSession, producer: Producer) -> None:
    await reported(producer)
    many = [{"service": f"s{n}", "payload": {}} for n in range(59)]
    await post(api, "/api/jobs", 201, [{"service": "simulation"}] * 3 + many)
    lanes = {lane["service"]: lane["lane"] for lane in (await get(api, "/api/lanes"))["lanes"]}
    await Queue(producer.redis, producer.keys).judge(lanes["s0"], "nobody")
    found = await samples(api)
    lane = lanes["simulation"]
    assert found["emp_lane_jobs", lane, "simulation"] == 3
    assert found["emp_lane_jobs", "other", "other"] == 10
    assert sum(name == "emp_lane_jobs" for name, *_ in found) == 51
    assert found["emp_lane_oldest_wait_seconds", lane, "simulation"] < 60
    states = ("idle", "busy", "down", "silent")
    assert [found.get(("emp_lane_workers", lane, "simulation", s)) for s in states] == [1, 1, 1, 1]
    assert (found["emp_lanes",], found["emp_lanes_unworkable",]) == (60, 1)
    assert (found["emp_jobs", "pending"], found["emp_jobs", "unworkable"]) == (61, 1)
    assert found["emp_api_job_events_total", "jobs_submitted"] >= 60
    assert found["emp_redis_up",] == 1


async def test_a_single_job_past_its_limit_is_refused_before_a_list_would_be(api: aiohttp.ClientSession) -> None:
    large = json.dumps({"service": "simulation", "payload": {"x": "y" * MAX_JOB_BYTES}}).encode()
    async with api.post("/api/jobs", data=io.BytesIO(large)) as response:
        assert response.status == 413 and "larger" in (await response.json())["error"]
    jobs = [{"service": "simulation", "payload": {"x": "y" * 1024 * 1024}} for _ in range(8)]
    assert len((await post(api, "/api/jobs", 201, jobs))["job_ids"]) == 8
