"""What ComfyUI is sent beside a workflow, and what of its words is kept: through connector, worker and queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from emp_orch import manifest
from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.control.jobs.lost_jobs import LostJobs
from emp_orch.jobs.document.secrets import HIDDEN
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
from emp_orch.store.queue.claim import Claimed, Claims, RunRef
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import NotDone
from support.redis.server import job, until
from support.worker.config import CONFIG
from support.worker.connector import serving
from support.worker.lost_jobs import FLEET, LONG_MS, leading
from support.worker.processes import KEYS, at

CANARY = "comfyui-77e1c0a9d3"
FLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}
PAYLOAD: dict[str, Any] = {
    "workflow": FLOW,
    "extra_data": {"preview_method": "taesd", "extra_pnginfo": {"a": 1}, "api_key_comfy_org": CANARY},
}


@dataclass
class Refuses:
    """A server that takes no workflow, and says why at length."""

    sent: list[dict[str, Any]] = field(default_factory=list)

    async def prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.sent.append(body)
        error = {"message": "unauthorized", "details": json.dumps(body["extra_data"])}
        return web.json_response({"error": error, "node_errors": {}}, status=400)

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for _ in ws:
            pass
        return ws

    async def history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        failed = {"exception_message": f"bad key {CANARY}", "node_id": "1", "node_type": "SaveImage"}
        status = {"status_str": "error", "completed": False, "messages": [["execution_error", failed]]}
        return web.json_response({prompt_id: {"outputs": {}, "status": status}})

    def app(self) -> web.Application:
        made = web.Application()
        made.router.add_post("/prompt", self.prompt)
        made.router.add_get("/ws", self.socket)
        made.router.add_get("/history/{id}", self.history)
        return made


@pytest.fixture
async def claims(r: Client) -> AsyncIterator[Claims]:
    made = Claims(r, KEYS, "m-worker-0", lease_s=0.01)
    yield made
    await made.aclose()


async def claimed(r: Client, claims: Claims) -> Claimed:
    await Queue(r, KEYS).submit(job(id="j", payload=PAYLOAD))
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    return claim


async def test_keys_go_to_the_service_and_come_back_unreadable(r: Client, claims: Claims, tmp_path: Path) -> None:
    server = Refuses()
    async with serving(server.app()) as url:
        connector, claim = ComfyUI(url, {}), await claimed(r, claims)
        given = Assignment(
            claim=claim,
            connector=connector,
            binding=ServiceBinding(service="simulation", connector="comfyui", url=url),
            artifacts=Artifacts(local_url(tmp_path)),
        )
        outcome = await JobRun(claims, given, CONFIG, asyncio.Event()).run()
        await connector.close()
    (sent,) = server.sent
    assert sent["extra_data"] == {**PAYLOAD["extra_data"], "emp_job_id": "j"}
    assert isinstance(outcome, NotDone) and CANARY not in repr(outcome)
    assert HIDDEN in outcome.error.message and HIDDEN in str(outcome.error.detail)


async def test_what_is_asked_after_a_worker_was_lost_comes_back_unreadable(
    r: Client, claims: Claims, tmp_path: Path
) -> None:
    path = tmp_path / "emp.yaml"
    path.write_text(FLEET)
    async with serving(Refuses().app()) as url:
        fleet = at(manifest.load(path, {}), URL(url).port or 0, "comfyui")
        claim = await claimed(r, claims)
        await claims.began(claim, RunRef(connector="comfyui", url=url, ref="p1"))
        async with asyncio.TaskGroup() as group:
            lost = LostJobs(r, KEYS, Artifacts(local_url(tmp_path)), group)

            async def failed() -> bool:
                await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
                return (await Queue(r, KEYS).get("j")).status is JobStatus.FAILED

            await until(failed)
    found = await Queue(r, KEYS).get("j")
    assert found.error is not None and found.error.message.endswith(f"bad key {HIDDEN}")
    assert not await r.exists(KEYS.secrets("j"))
