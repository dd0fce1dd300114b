"""GET /api/monitor/state and the other reads, on a real Redis and the real API process."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import msgspec

from emp_orch.api.views.fleet import State
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.overrides import read_overrides
from support.http.stack import SERVICES, Producer, Stack, fleet_of

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def get(api: aiohttp.ClientSession, path: str, status: int = 200) -> dict[str, Any]:
    async with api.get(path) as response:
        assert response.status == status, await response.text()
        body = await response.json()
    assert body["success"] is (status < 400)
    assert RFC3339.fullmatch(body["timestamp"])
    return body


async def state(api: aiohttp.ClientSession) -> State:
    return msgspec.convert((await get(api, "/api/monitor/state"))["data"], State)


async def test_one_machine_with_its_workers(api: aiohttp.ClientSession, producer: Producer) -> None:
    fleet = fleet_of("basic-machine-local")
    await producer.apply(fleet)
    await producer.machine(fleet, "basic-machine-local")
    for gpu in (0, 1):
        await producer.worker("basic-machine-local", gpu)
    await producer.status()

    seen = await state(api)
    (machine,) = seen.machines
    assert (machine.machine_id, machine.status, machine.num_gpus) == ("basic-machine-local", "ready", 2)
    assert machine.workers == ["basic-machine-local-worker-0", "basic-machine-local-worker-1"]
    assert machine.desired
    assert not machine.stale
    assert machine.age_s < 10
    assert set(machine.programs) >= {"comfyui-gpu0", "comfyui-gpu1", "redis-worker-gpu0", "redis-worker-gpu1"}
    assert RFC3339.fullmatch(machine.last_seen)
    assert [w.worker_id for w in seen.workers] == machine.workers
    for worker in seen.workers:
        assert worker.machine_id == "basic-machine-local"
        assert worker.status == "idle"
        assert worker.capabilities["services"] == list(SERVICES)
        assert set(worker.connector_statuses) == set(SERVICES)
    assert seen.drift == []
    assert (seen.fleet.name, seen.fleet.generation, seen.fleet.in_sync) == ("basic", 1, True)
    (desired,) = seen.fleet.machines
    assert (desired.id, desired.num_gpus, desired.services) == ("basic-machine-local", 2, SERVICES)
    assert set(desired.programs) == set(machine.programs)
    assert seen.system_stats.reconciler.alive
    assert seen.system_stats.workers.by_status == {"idle": 2}
    assert seen.jobs.counts["pending"] == 0


async def test_a_silent_machine_is_shown_offline_and_kept(api: aiohttp.ClientSession, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.silence("m1", 60_000)
    (machine,) = (await state(api)).machines
    assert (machine.status, machine.reported_status, machine.stale) == ("offline", "ready", True)
    assert machine.age_s >= 60


async def test_an_empty_redis_is_a_state_too(api: aiohttp.ClientSession) -> None:
    seen = await state(api)
    assert seen.machines == []
    assert (seen.fleet.generation, seen.fleet.in_sync) == (0, None)
    assert not seen.system_stats.reconciler.alive


async def test_a_damaged_report_hides_nothing_else(
    api: aiohttp.ClientSession, producer: Producer, http_stack: Stack
) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.redis.hset("machines", "m2", "{not json")
    await producer.redis.set("fleet:basic:status", '{"drift": 3}')
    seen = await state(api)
    assert [m.machine_id for m in seen.machines] == ["m1"]
    assert seen.system_stats.malformed == 1
    assert "damaged" in seen.system_stats.reconciler.error


async def test_looking_writes_nothing(api: aiohttp.ClientSession, producer: Producer) -> None:
    await producer.apply(fleet_of("m1"))

    async def writes() -> int:
        stats = await producer.redis.info("commandstats")
        # What a script writes is counted as well.
        names = ("set", "hset", "zadd", "xadd", "del", "hdel", "zrem", "rename", "pexpire")
        return sum(stats[f"cmdstat_{n}"]["calls"] for n in names if f"cmdstat_{n}" in stats)

    before = await writes()
    for path in ("/api/monitor/state", "/api/drift", "/api/plan", "/api/generations", "/api/journal", "/metrics"):
        async with api.get(path) as response:
            assert response.status == 200
    assert await writes() == before


async def test_drift_plan_generations_and_journal(api: aiohttp.ClientSession, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.apply(fleet)
    await producer.status(await producer.drift("m1", "comfyui-gpu1"), plan=("start program comfyui-gpu1 on m1",))
    mandate = await producer.mandate()
    await journal.write(producer.redis, producer.keys, mandate, [("drift_opened", {"subject": "comfyui-gpu1"})])

    found = (await get(api, "/api/drift"))["data"]
    (drift,) = found["drift"]
    assert drift["subject"] == "comfyui-gpu1"
    assert (drift["desired"], drift["observed"]) == ("RUNNING", "FATAL")
    assert (drift["action"], drift["attempts"]) == ("start program", 2)
    assert drift["origin"] == "emp.yaml:20:3"
    assert RFC3339.fullmatch(drift["since"])
    assert RFC3339.fullmatch(drift["next_attempt"])
    assert found["reconciler"]["alive"]
    assert (await get(api, "/api/plan"))["data"]["plan"] == ["start program comfyui-gpu1 on m1"]
    assert [g["number"] for g in (await get(api, "/api/generations"))["data"]] == [2, 1]
    (entry,) = (await get(api, "/api/journal"))["data"]
    assert entry["type"] == "drift_opened"
    assert entry["data"]["subject"] == "comfyui-gpu1"


async def test_health_ready_version_and_metrics(api: aiohttp.ClientSession, http_stack: Stack) -> None:
    assert (await get(api, "/health"))["redis"] is True
    assert (await get(api, "/ready"))["data"] == {"ready": True}
    assert (await get(api, "/version"))["data"]["fleet"] == "basic"
    async with api.get("/metrics") as response:
        assert response.content_type == "text/plain"
        lines = (await response.text()).splitlines()
    assert "emp_redis_up 1.0" in lines
    assert 'emp_jobs{status="pending"} 0.0' in lines
    assert "emp_api_events_total 0.0" in lines


async def test_openapi_lists_every_route(api: aiohttp.ClientSession) -> None:
    from emp_orch.api.routes import ROUTES
    from emp_orch.api.views.route import Opens

    async with api.get("/openapi.json") as response:
        document = await response.json()
    assert document["openapi"].startswith("3.1")
    listed = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert listed == {(r.method, r.path) for r in ROUTES}
    # This API has no token: it asks for none, but machines have theirs.
    asked = {p for p, of in document["paths"].items() for o in of.values() if o["security"]}
    assert asked == {r.path for r in ROUTES if r.opens in (Opens.MACHINE, Opens.JOIN)}
    schemas = document["components"]["schemas"]
    assert {"State", "MachineView", "WorkerView", "DriftView", "Error"} <= set(schemas)
    refs = set(re.findall(r"#/components/schemas/([^\"]+)", msgspec.json.encode(document).decode()))
    assert refs <= set(schemas)


async def test_pause_and_resume(api: aiohttp.ClientSession, producer: Producer) -> None:
    async with api.post("/api/reconcile/pause", json={"reason": "disk swap", "by": "ops"}) as response:
        assert response.status == 200
    (pause,) = await read_overrides(producer.redis, producer.keys, "basic")
    assert (pause.kind, pause.scope, pause.reason, pause.by) == ("pause", "fleet", "disk swap", "ops")
    assert (await state(api)).fleet.paused == "disk swap (by ops)"
    async with api.post("/api/reconcile/resume") as response:
        assert (await response.json())["data"]["was_paused"] is True
    assert (await state(api)).fleet.paused == ""
    assert [e.type for e in await producer.events.recent(2)] == ["reconcile_paused", "reconcile_resumed"]
