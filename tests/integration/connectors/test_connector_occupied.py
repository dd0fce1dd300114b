"""What else a ComfyUI is at: told by each probe, and no run is begun behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from emp_orch.connectors.base import RunFailed
from emp_orch.connectors.comfyui.connector import ComfyUI
from emp_orch.fleet.model.observed import ConnectorStatus, Occupant
from support.comfyui.peer import WORKFLOW
from support.worker.connector import Stage, job_of, serving


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(folder=tmp_path, job=job_of({"workflow": WORKFLOW}))


class Busy:
    """A ComfyUI that runs what it is given for ever, and heeds no interrupt."""

    def __init__(self) -> None:
        self.running: list[list[Any]] = []
        self.pending: list[list[Any]] = []
        self.posted = 0
        self.app = web.Application()
        self.app.router.add_get("/system_stats", self._stats)
        self.app.router.add_get("/ws", self._ws)
        self.app.router.add_post("/prompt", self._prompt)
        self.app.router.add_get("/queue", self._queue)
        self.app.router.add_get("/history/{id}", self._history)
        self.app.router.add_post("/{path:.*}", self._other)

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.8.0"}, "devices": []})

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.posted += 1
        self.running.append([self.posted, body["prompt_id"], {}, body["extra_data"], []])
        return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})

    async def _queue(self, _: web.Request) -> web.Response:
        return web.json_response({"queue_running": self.running, "queue_pending": self.pending})

    async def _history(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _other(self, request: web.Request) -> web.Response:
        return web.Response(status=405 if request.path.startswith("/api/jobs") else 200)


@pytest.fixture
async def busy() -> AsyncIterator[tuple[Busy, ComfyUI]]:
    peer = Busy()
    async with serving(peer.app) as url:
        connector = ComfyUI(url, {})
        yield peer, connector
        await connector.close()


async def test_somebody_elses_prompt_is_named_and_nothing_is_begun_behind_it(
    busy: tuple[Busy, ComfyUI], stage: Stage
) -> None:
    peer, connector = busy
    assert (await connector.probe()).occupied_by == ""
    peer.pending = [[1, "abc", {}, {"client_id": "browser"}, []]]
    report = await connector.probe()
    words = "a prompt that emp did not send (abc)"
    assert (report.status, report.occupied_by) == (ConnectorStatus.IDLE, words)
    assert report.occupant is Occupant.FOREIGN
    with pytest.raises(RunFailed, match="is occupied by a prompt that emp did not send") as failed:
        await connector.run(stage.run())
    assert not failed.value.reached and failed.value.error.retryable and peer.posted == 0


async def test_another_workers_run_is_told_from_a_strangers(busy: tuple[Busy, ComfyUI]) -> None:
    peer, connector = busy
    peer.running = [[1, "abc", {}, {"emp_job_id": "j7"}, []]]
    report = await connector.probe()
    assert report.occupied_by == "prompt abc of job j7, which another worker sent"
    assert report.occupant is Occupant.RUN


async def test_its_own_run_occupies_it_only_when_it_ignores_an_interrupt(
    busy: tuple[Busy, ComfyUI], stage: Stage
) -> None:
    peer, connector = busy
    run = asyncio.create_task(connector.run(stage.run()))
    async with asyncio.timeout(10):
        while not peer.running:
            await asyncio.sleep(0.01)
    prompt_id = peer.running[0][1]
    assert (await connector.probe()).occupied_by == ""
    await connector.cancel()
    run.cancel()
    await asyncio.wait([run])
    report = await connector.probe()
    assert report.occupied_by == f"prompt {prompt_id} of job {stage.job.id}, which ignores an interrupt"
    assert report.occupant is Occupant.STUCK
    with pytest.raises(RunFailed, match="is occupied by"):
        await connector.run(stage.run())
    assert peer.posted == 1
    peer.running.clear()
    assert (await connector.probe()).occupied_by == ""


@pytest.mark.parametrize(
    "rows", [[["?"]], [[1, 5, {}, {}]], [[1, "x" * 500, {}, {"emp_job_id": ["no"]}]], [[1, "a", {}, None]]]
)
async def test_odd_rows_are_no_harm(busy: tuple[Busy, ComfyUI], rows: list[list[Any]]) -> None:
    peer, connector = busy
    peer.running = rows
    report = await connector.probe()
    assert report.status is ConnectorStatus.IDLE and len(report.occupied_by) < 120
