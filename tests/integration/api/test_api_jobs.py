"""Jobs over HTTP and WebSocket, claimed and ended by the queue's own worker half."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from emp_orch.api.stream.job_stream import JUST_SUBMITTED
from support.http.calls import get, post
from support.http.sse import stream
from support.http.stack import Producer, Stack, eventually


async def test_submit_list_cancel_retry(api: aiohttp.ClientSession) -> None:
    made = await post(api, "/api/jobs", 201, {"service": "simulation", "payload": {"prompt": "a lake"}})
    job_id = made["job_id"]
    same = {"service": "simulation", "id": job_id, "payload": {"prompt": "a lake"}}
    again = await post(api, "/api/jobs", 200, same)
    assert (again["data"]["created"], again["data"]["conflict"]) == (False, False)
    assert job_id in (await post(api, "/api/jobs", 409, {"service": "simulation", "id": job_id}))["error"]
    listed = await get(api, "/api/jobs?status=pending")
    assert [j["job_id"] for j in listed["jobs"]] == [job_id]
    assert listed["total"] == 1
    job = await get(api, f"/api/jobs/{job_id}")
    assert (job["status"], job["payload"]) == ("pending", {"prompt": "a lake"})
    assert "no worker reports" in job["why"]
    assert (await get(api, "/api/monitor/state"))["jobs"]["counts"]["pending"] == 1
    cancelled = await post(api, f"/api/jobs/{job_id}/cancel", 200, {"reason": "no longer needed"})
    assert cancelled["data"]["outcome"] == "cancelled"
    await post(api, f"/api/jobs/{job_id}/retry", 200)
    assert "cannot be retried" in (await post(api, f"/api/jobs/{job_id}/retry", 409))["error"]
    await post(api, "/api/jobs/unknown/cancel", 404)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["service"]),
        ({"service": "simulation", "priority": "high", "colour": 1}, ["priority", "colour"]),
        ({"service": "../x"}, ["service"]),
        ([], ["jobs", "10000"]),
        (7, ["body", "a list of jobs"]),
    ],
)
async def test_a_bad_job_names_its_fields(api: aiohttp.ClientSession, body: Any, words: list[str]) -> None:
    error = (await post(api, "/api/jobs", 400, body))["error"]
    for word in words:
        assert word in error


async def test_progress_streams_until_the_end(http_stack: Stack, api: aiohttp.ClientSession) -> None:
    job_id = (await post(api, "/api/jobs", 201, {"service": "simulation"}))["job_id"]
    async with stream(http_stack.monitor, f"/api/jobs/{job_id}/progress") as reader:
        first = await reader.next()
        assert first.event == "job"
        assert json.loads(first.data)["status"] == "pending"
        await post(api, f"/api/jobs/{job_id}/cancel", 200)
        told = await reader.next()
        if told.event == "job":  # it waited long enough to be explained
            told = await reader.next()
        assert told.event == "job_cancelled"
        last = await reader.next()
        assert json.loads(last.data)["status"] == "cancelled"
        with pytest.raises(EOFError):
            await reader.next()
    async with stream(http_stack.api, f"/api/jobs/{job_id}/progress") as reader:
        assert json.loads((await reader.next()).data)["status"] == "cancelled"
        with pytest.raises(EOFError):
            await reader.next()


async def test_a_job_that_still_waits_is_explained(http_stack: Stack, api: aiohttp.ClientSession) -> None:
    """The stream of a job that was just submitted begins without a look at all workers; that follows."""
    job_id = (await post(api, "/api/jobs", 201, {"service": "simulation"}))["job_id"]
    async with stream(http_stack.api, f"/api/jobs/{job_id}/progress") as reader:
        said = json.loads((await reader.next()).data)["why"]
        if said == JUST_SUBMITTED:  # else this test was slow to ask
            said = json.loads((await reader.next()).data)["why"]
        assert "no worker reports" in said
    async with stream(http_stack.api, f"/api/jobs/{job_id}/progress") as reader:
        assert "no worker reports" in json.loads((await reader.next()).data)["why"]


@contextlib.asynccontextmanager
async def socket(url: str, path: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url + path) as ws:
        yield ws


async def until(ws: aiohttp.ClientWebSocketResponse, type_: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = await ws.receive_json()
            if found["type"] == type_:
                return found


@pytest.mark.parametrize("of", ["api", "monitor"])
async def test_the_monitor_socket(http_stack: Stack, producer: Producer, of: str) -> None:
    async with socket(getattr(http_stack, of), "/ws/monitor/page-1") as ws:
        await ws.send_str("{broken")
        assert "not JSON" in (await until(ws, "error"))["error"]
        await ws.send_json({"type": "dance"})
        assert "dance" in (await until(ws, "error"))["error"]
        await ws.send_json({"type": "subscribe", "types": "all"})
        assert "types" in (await until(ws, "error"))["error"]
        await ws.send_bytes(b"\x00")
        await until(ws, "error")
        await ws.send_json({"type": "heartbeat"})
        await until(ws, "heartbeat_ack")
        await ws.send_json({"type": "monitor_connect"})
        assert (await ws.receive_json())["type"] == "connected"
        snapshot = await until(ws, "full_state_snapshot")
        assert snapshot["data"]["data"]["machines"] == []
        event_id = await producer.events.append("worker_status", worker_id="w")
        event = await until(ws, "worker_status")
        assert (event["id"], event["data"]["worker_id"]) == (event_id, "w")
        await ws.send_json({"type": "subscribe", "types": ["wanted"]})
        await until(ws, "subscribed")
        await producer.events.append("unwanted")
        await producer.events.append("wanted")
        assert (await ws.receive_json())["type"] == "wanted"


async def test_the_client_socket(http_stack: Stack, api: aiohttp.ClientSession) -> None:
    async with socket(http_stack.monitor, "/ws/client/c1") as ws:
        await ws.send_json({"type": "submit_job", "request_id": "r1", "job": {"service": "simulation"}})
        submitted = await until(ws, "job_submitted")
        assert (submitted["request_id"], submitted["created"]) == ("r1", True)
        job_id = submitted["job_id"]
        assert (await until(ws, "job"))["data"]["status"] == "pending"
        await ws.send_json({"type": "submit_job", "request_id": "r2", "job": {"service": ""}})
        error = await until(ws, "error")
        assert error["request_id"] == "r2"
        assert "service" in error["error"]
        await ws.send_json({"type": "cancel_job", "job_id": job_id, "request_id": "r3"})
        # The answer and the events come by two ways; either may be first.
        async with asyncio.timeout(20):
            told = {m["type"]: m for m in [await ws.receive_json() for _ in range(3)]}
        assert told["job_cancel"]["outcome"] == "cancelled"
        assert told["job_cancelled"]["data"]["job_id"] == job_id
        assert told["job"]["data"]["status"] == "cancelled"
        await ws.send_json({"type": "submit_job", "request_id": "r5", "job": {"service": "other", "id": job_id}})
        assert "another job" in (await until(ws, "error"))["error"]
        await ws.send_json({"type": "subscribe_progress", "job_id": "unknown", "request_id": "r4"})
        assert "unknown" in (await until(ws, "error"))["error"]
        await ws.send_json({"type": "submit_job", "request_id": "r6"})  # no message of ours: it lacks the job
        error = await until(ws, "error")
        assert (error.get("request_id"), "job" in error["error"]) == ("r6", True)
        await ws.send_str('{"request_id": "r7"')
        assert "not JSON" in (await until(ws, "error"))["error"]

    async def none_left() -> bool:
        return bool((await get(api, "/api/monitor/state"))["system_stats"]["api"]["ws_clients"] == 0)

    await eventually(none_left, "closed sockets are not counted")
