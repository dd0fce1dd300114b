"""seed/testing-procedures.md, success criteria: what a working system shows, on a real stack."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp

from emp_orch.store.fleet.events import Event, Events
from emp_orch.store.redis import client
from emp_orch.store.redis.keys import Keys
from support.stack.stack import MACHINE, Stack, until

STARTUP = [
    ("machine_startup", "starting"),
    ("startup_step", "shared_setup_starting"),
    ("service_started", "supervisord"),
    ("service_started", "shared-setup"),
    ("startup_step", "comfyui_install_starting"),
    ("service_started", "comfyui-installer"),
    ("startup_step", "comfyui_services_starting"),
    ("service_started", "comfyui-gpu*"),
    ("service_started", "comfyui-gpu*"),
    ("startup_step", "workers_starting"),
    ("service_started", "redis-worker-gpu*"),
    ("service_started", "redis-worker-gpu*"),
    ("machine_startup", "configuring"),
    ("machine_startup", "ready"),
    ("startup_complete", ""),
]


async def _get(url: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.json()


async def _events(stack: Stack) -> list[Event]:
    async with client.connected(stack.redis_url, read_only=True) as r:
        return await Events(r, Keys()).recent(5_000)


def _startup_events(events: list[Event]) -> list[tuple[str, str]]:
    """Machine start-up events as (type, what), the simulation service's own left out, slots made equal."""
    found = []
    for event in events:
        data = event.data
        if event.type not in ("machine_startup", "startup_step", "service_started", "startup_complete"):
            continue
        what = str(data.get("phase") or data.get("step") or data.get("service") or "")
        if what.startswith("simulation"):
            continue
        found.append((event.type, what.rstrip("0123456789") + "*" if "-gpu" in what else what))
    return found


async def test_machine_and_workers_are_registered(stack: Stack) -> None:
    data = await stack.state()
    assert [(m["machine_id"], m["status"]) for m in data["machines"]] == [(MACHINE, "ready")]
    workers = {w["worker_id"]: w for w in data["workers"]}
    assert set(workers) == {f"{MACHINE}-worker-0", f"{MACHINE}-worker-1"}
    for worker in workers.values():
        assert worker["machine_id"] == MACHINE
        assert worker["status"] == "idle"
        assert worker["capabilities"]["services"] == ["simulation", "comfyui"]
        assert {s: c["status"] for s, c in worker["connector_statuses"].items()} == {
            "simulation": "idle",
            "comfyui": "idle",
        }
    assert data["drift"] == []
    assert data["fleet"]["generation"] == 1


async def test_start_up_events_come_in_order(stack: Stack) -> None:
    assert _startup_events(await _events(stack)) == STARTUP


async def test_every_endpoint_answers(stack: Stack) -> None:
    for path in ("/health", "/ready", "/version", "/openapi.json", "/api/drift", "/api/plan", "/api/jobs"):
        status, _ = await _get(stack.api + path)
        assert status == 200, path
    for port in (stack.ports["simulation"], stack.ports["comfyui"], stack.ports["comfyui"] + 1):
        status, _ = await _get(f"http://127.0.0.1:{port}/health")
        assert status == 200


async def test_machine_health_server(stack: Stack) -> None:
    (machine,) = (await stack.state())["machines"]
    base = f"http://127.0.0.1:{machine['health_port']}"
    assert (await _get(f"{base}/health"))[0] == 200
    assert await _get(f"{base}/ready") == (200, {"ready": True, "status": "ready", "error": ""})
    status, report = await _get(f"{base}/status")
    assert (status, report["machine_id"], report["num_gpus"]) == (200, MACHINE, 2)


async def test_programs_have_their_environment(stack: Stack) -> None:
    for slot in (0, 1):
        who = stack.program(f"comfyui-gpu{slot}")
        text = Path(f"/proc/{who.pid}/environ").read_text()
        environ = dict(e.split("=", 1) for e in text.split("\0") if "=" in e)
        assert environ["CUDA_VISIBLE_DEVICES"] == str(slot)
        assert environ["MACHINE_ID"] == MACHINE
        assert environ["NUM_GPUS"] == "2"
        assert environ["HUB_REDIS_URL"] == environ["REDIS_URL"] == stack.redis_without_login


def test_logs_are_where_the_readme_says(stack: Stack) -> None:
    for component in ("redis", "api", "monitor", "reconcile", f"machine-{MACHINE}"):
        assert stack.layout.log(component).stat().st_size > 0, component
    agent = (stack.layout.logs / f"machine-{MACHINE}" / "agent.log").read_text()
    assert "Publishing machine_startup event" in agent


def test_event_stream_file_has_the_snapshot(stack: Stack) -> None:
    def lines() -> list[dict[str, Any]]:
        path = stack.layout.log("monitorEventStream")
        return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []

    until("full_state_snapshot in the file", lambda: [x for x in lines() if x["event"] == "full_state_snapshot"])
    assert lines()[0]["event"] == "connected"


def test_diff_is_empty_and_apply_is_a_no_op(stack: Stack) -> None:
    code, found = stack.diff()
    assert (code, found["drift"], found["plan"]) == (0, [], [])
    assert stack.ok("diff").strip() == "in sync: test is as generation 1 says"
    before = stack.program("supervisord"), stack.program("comfyui-gpu0"), stack.control("redis")
    again = stack.ok("apply", "-y")
    assert again.startswith("nothing to do: generation 1 of test is what runs")
    assert (stack.program("supervisord"), stack.program("comfyui-gpu0"), stack.control("redis")) == before


async def test_a_job_runs_to_its_result(stack: Stack) -> None:
    done = json.loads(stack.ok("submit", "simulation", "--payload", '{"prompt": "a fox"}', "--wait", "--json"))
    assert done["status"] == "completed"
    status, body = await _get(f"{stack.api}/api/jobs/{done['id']}")
    assert status == 200
    async with aiohttp.ClientSession() as session:
        empty = {"service": "comfyui", "payload": {"prompt": {}}}
        async with session.post(f"{stack.api}/api/jobs", json=empty) as answer:
            assert answer.status == 400
            assert "payload.prompt: the workflow has no node" in (await answer.json())["error"]
        lacking = {"service": "comfyui", "payload": {"1": {"class_type": "SaveImage", "inputs": {}}}}
        async with session.post(f"{stack.api}/api/jobs", json=lacking) as answer:
            assert answer.status == 201
            job_id = (await answer.json())["job_id"]
    for _ in range(600):
        status, body = await _get(f"{stack.api}/api/jobs/{job_id}")
        job = body["data"] if "data" in body else body["job"]
        if job["status"] not in ("pending", "assigned", "in_progress"):
            break
        await asyncio.sleep(0.05)
    # A workflow without what its node needs is refused by the service, in its own words; it does not count as done.
    assert job["status"] == "failed"
    assert "Required input is missing" in job["error"]["message"]


def test_restart_of_a_program_and_of_the_machine(stack: Stack) -> None:
    before = stack.program("comfyui-gpu1"), stack.program("comfyui-gpu0")
    stack.ok("restart", MACHINE, "comfyui-gpu1")
    stack.until_in_sync()
    assert stack.program("comfyui-gpu1") != before[0]
    assert stack.program("comfyui-gpu0") == before[1]
    whole = stack.program("supervisord")
    stack.ok("restart", MACHINE)
    stack.until_in_sync()
    assert stack.program("supervisord") != whole
    unknown = stack.run("restart", "no-such-machine")
    assert unknown.returncode == 2
    assert "no machine 'no-such-machine'" in unknown.stderr
