"""The comfyui and simulation connectors: on the real simulation service, and on a peer that says what ComfyUI says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from emp_orch.connectors import base
from emp_orch.connectors.base import Connector, Recovers, RunFailed, StillRuns
from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.connectors.comfyui.run import follow
from emp_orch.connectors.comfyui.server import session
from emp_orch.connectors.simulation import Request, Simulation, workflow_of
from emp_orch.jobs.document.model import Result
from support.redis.server import eventually, free_port, until
from support.worker.connector import Stage, job_of, serving
from support.worker.processes import Daemon

PNG = b"\x89PNG\r\n\x1a\n"


class Service:
    """The simulation service in a process of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.daemon = self.start()

    def start(self) -> Daemon:
        argv = ("simulate", "--port", str(self.port), "--dir", "data", "--step-ms", "10", "--steps", "10000")
        self.daemon = Daemon(self._folder, f"simulation-{free_port()}", *argv)
        eventually(lambda: "simulation serves" in self.daemon.log)
        return self.daemon

    async def running(self) -> list[str]:
        async with aiohttp.ClientSession(self.url) as http, http.get("/queue") as answer:
            return [row[1] for row in (await answer.json())["queue_running"]]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    try:
        yield made
    finally:
        made.daemon.kill()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "artifacts", job_of({"prompt": "a cat", "steps": 3}))


def long(stage: Stage, steps: int = 10_000) -> Stage:
    return Stage(stage.folder, job_of({"prompt": "long", "steps": steps}))


@contextlib.asynccontextmanager
async def simulation(url: str) -> AsyncIterator[Simulation]:
    made = Simulation(url, {})
    try:
        yield made
    finally:
        await made.close()


async def test_a_run_names_itself_and_saves_its_picture(service: Service, stage: Stage) -> None:
    async with simulation(service.url) as connector:
        result = await connector.run(stage.run())
        (output,) = result.outputs
        assert output.content_type == "image/png" and stage.saved(output).startswith(PNG)
        assert len(stage.refs) == 1 and stage.told[-1].fraction == 0.8571, "six of seven nodes before the last"
        again = await connector.recover(stage.run("2"), stage.refs[0], wait=False)
        assert again is not None and again.outputs[0].path.startswith("2/")
        assert again.outputs[0].sha256 == output.sha256


async def begun(connector: Connector, stage: Stage) -> asyncio.Task[Result]:
    """A run under way, so far that the service works on it."""
    running = asyncio.create_task(connector.run(stage.run()))

    async def told() -> bool:
        return len(stage.told) > 1

    await until(told)
    return running


async def test_another_follows_a_run_whose_worker_is_gone(service: Service, stage: Stage) -> None:
    stage = long(stage, steps=100)
    async with simulation(service.url) as first, simulation(service.url) as second:
        running = await begun(first, stage)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        with pytest.raises(StillRuns):
            await second.recover(stage.run("2"), stage.refs[0], wait=False)
        stage.told.clear()
        result = await second.recover(stage.run("2"), stage.refs[0], wait=True)
        assert result is not None and stage.saved(result.outputs[0]).startswith(PNG)
        assert stage.told, "progress goes on"
        assert len(stage.refs) == 1, "it was not begun again"


async def test_what_cannot_be_kept_is_run_again(service: Service, stage: Stage) -> None:
    async with simulation(service.url) as connector:
        assert await connector.recover(stage.run(), "nobody", wait=True) is None
        stage = long(stage)
        running = await begun(connector, stage)
        await connector.cancel()
        with pytest.raises(RunFailed, match="interrupted"):
            await running
        assert await connector.recover(stage.run(), stage.refs[0], wait=True) is None
        failing = Stage(stage.folder, job_of({"fail": "out of paint", "steps": 1}))
        with pytest.raises(RunFailed, match="out of paint"):
            await connector.run(failing.run())
        with pytest.raises(RunFailed, match="out of paint") as caught:
            await connector.recover(failing.run(), failing.refs[0], wait=True)
        assert not caught.value.error.retryable


async def test_a_followed_run_that_someone_else_stops_is_run_again(service: Service, stage: Stage) -> None:
    stage = long(stage)
    async with simulation(service.url) as first, simulation(service.url) as second:
        running = await begun(first, stage)
        ref = stage.refs[0]
        running.cancel()
        await asyncio.wait([running])
        following = asyncio.create_task(second.recover(stage.run("2"), ref, wait=True))
        told = len(stage.told)

        async def followed() -> bool:
            return len(stage.told) > told

        await until(followed)
        async with aiohttp.ClientSession(service.url) as http, http.post("/interrupt", json={"prompt_id": ref}):
            pass
        assert await following is None


async def test_cancelling_a_followed_run_stops_it(service: Service, stage: Stage) -> None:
    stage = long(stage)
    async with simulation(service.url) as first, simulation(service.url) as second:
        running = await begun(first, stage)
        running.cancel()
        await asyncio.wait([running])
        following = asyncio.create_task(second.recover(stage.run("2"), stage.refs[0], wait=True))
        told = len(stage.told)

        async def followed() -> bool:
            return len(stage.told) > told

        await until(followed)
        await second.cancel()
        with pytest.raises(RunFailed, match="interrupted"):
            await following
        assert await service.running() == []


async def test_a_service_that_restarts_lost_the_run(service: Service, stage: Stage) -> None:
    async with simulation(service.url) as connector:
        running = await begun(connector, long(stage))
        service.daemon.kill()
        service.start()
        with pytest.raises(RunFailed, match="lost the run") as caught:
            await running
        assert caught.value.error.retryable
        assert (await connector.run(stage.run())).outputs, "it serves the next job"


async def test_a_service_that_stays_away_gives_the_job_back(
    service: Service, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "GONE_S", 0.2)
    async with simulation(service.url) as connector:
        running = await begun(connector, long(stage))
        service.daemon.kill()
        with pytest.raises(RunFailed, match="does not answer") as caught:
            await running
        assert caught.value.error.retryable
        with pytest.raises(RunFailed) as caught:
            await connector.recover(stage.run(), "x", wait=False)
        assert caught.value.error.retryable, "nothing is known of the run"


class Peer:
    """What ComfyUI says, where the simulation has no such node: other kinds of output, broken connections."""

    def __init__(self, outputs: dict[str, Any], *, files: dict[str, bytes] | None = None) -> None:
        self.outputs = outputs
        self.files = files or {}
        self.drops = 0
        self.broken_downloads = 0
        self.clients: list[str] = []
        self.app = web.Application()
        self.app.router.add_get("/ws", self.ws)
        self.app.router.add_post("/prompt", self._prompt)
        self.app.router.add_get("/queue", self._queue)
        self.app.router.add_get("/history/{id}", self._history)
        self.app.router.add_get("/view", self._view)
        self._begun = self._ended = False

    async def _prompt(self, _: web.Request) -> web.Response:
        self._begun = True
        return web.json_response({"prompt_id": "p1", "number": 1, "node_errors": {}})

    async def _queue(self, _: web.Request) -> web.Response:
        rows = [[0, "p1", {}, {}, []]] if self._begun else []
        return web.json_response({"queue_running": rows, "queue_pending": []})

    async def _history(self, _: web.Request) -> web.Response:
        if not self._ended:
            return web.json_response({})
        status = {"status_str": "success", "completed": True, "messages": []}
        return web.json_response({"p1": {"outputs": self.outputs, "status": status}})

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        self.clients.append(request.query["clientId"])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "status", "data": {}})
        await socket.send_str("not JSON")
        await socket.send_bytes(b"a preview")
        await socket.send_json({"type": "crystools.monitor", "data": {"gpus": []}})
        if len(self.clients) <= self.drops:
            await socket.close()
            return socket
        self._ended = True
        await socket.send_json({"type": "executing", "data": {"node": None, "prompt_id": "p1"}})
        await socket.receive()
        return socket

    async def _view(self, request: web.Request) -> web.StreamResponse:
        body = self.files[f"{request.query['type']}/{request.query['subfolder']}/{request.query['filename']}"]
        if self.broken_downloads:
            self.broken_downloads -= 1
            answer = web.StreamResponse(headers={"Content-Length": str(len(body))})
            await answer.prepare(request)
            await answer.write(body[:1])
            assert request.transport is not None
            request.transport.abort()
            return answer
        return web.Response(body=body)


async def peer_result(peer: Peer, stage: Stage) -> Result:
    job = job_of({"workflow": workflow_of(Request())})
    stage.job = job
    async with serving(peer.app) as url:
        connector = ComfyUI(url, {})
        assert isinstance(connector, Recovers)
        try:
            return await connector.run(stage.run())
        finally:
            await connector.close()


async def test_every_kind_of_output_is_kept(stage: Stage) -> None:
    outputs = {
        "1": {"images": [{"filename": "a.png", "subfolder": "x", "type": "output"}]},
        "2": {"gifs": [{"filename": "a.gif", "subfolder": "", "type": "output", "format": "image/gif"}]},
        "3": {"audio": [{"filename": "a.mp3", "subfolder": "", "type": "output"}]},
        "4": {"video": [{"filename": "a.mp4", "subfolder": "", "type": "output"}], "animated": [True]},
        "5": {"text": ["hello", "you"]},
        "6": {"images": [{"filename": "a.png", "subfolder": "y", "type": "output"}]},
        "7": {"images": [{"filename": "preview.png", "subfolder": "", "type": "temp"}]},
    }
    names = ("x/a.png", "/a.gif", "/a.mp3", "/a.mp4", "y/a.png")
    files = {f"output/{name}": name.encode() for name in names}
    result = await peer_result(Peer(outputs, files=files), stage)
    assert [(o.name, o.content_type, stage.saved(o)) for o in result.outputs] == [
        ("a.png", "image/png", b"x/a.png"),
        ("a.gif", "image/gif", b"/a.gif"),
        ("a.mp3", "audio/mpeg", b"/a.mp3"),
        ("a.mp4", "video/mp4", b"/a.mp4"),
        ("a-2.png", "image/png", b"y/a.png"),
        ("5.txt", "text/plain; charset=utf-8", b"hello\nyou"),
    ]


async def test_a_lost_connection_is_made_again_under_the_same_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RECONNECT_S", 0.01)
    peer = Peer({}, files={})
    peer.drops = 3
    assert (await peer_result(peer, stage)).outputs == ()
    assert len(peer.clients) == 4 and len(set(peer.clients)) == 1


async def test_a_broken_download_is_begun_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "RECONNECT_S", 0.01)
    outputs = {"1": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}
    peer = Peer(outputs, files={"output//a.png": bytes(300_000)})
    peer.broken_downloads = 2
    (output,) = (await peer_result(peer, stage)).outputs
    assert stage.saved(output) == bytes(300_000)


async def test_what_does_not_speak_comfyui_fails_for_good(stage: Stage) -> None:
    app = web.Application()
    app.router.add_get("/ws", Peer({}).ws)

    async def prompt(_: web.Request) -> web.Response:
        return web.Response(text="<html>hello")

    app.router.add_post("/prompt", prompt)
    async with serving(app) as url:
        connector = ComfyUI(url, {})
        stage.job = job_of({"workflow": {}})
        with pytest.raises(RunFailed, match="does not speak ComfyUI") as caught:
            await connector.run(stage.run())
        assert not caught.value.error.retryable
        await connector.close()


async def test_an_answer_without_end_fills_no_memory(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a probe's nor a run's: what is read as a whole has a bound."""
    monkeypatch.setattr(session, "MAX_ANSWER_BYTES", 1_000_000)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while sent < 100_000_000:
            sent += 100_000
            await answer.write(b" " * 100_000)
        return answer

    app = web.Application()
    app.router.add_get("/ws", Peer({}).ws)
    app.router.add_route("*", "/{any:.*}", endless)
    async with serving(app) as url:
        connector = ComfyUI(url, {})
        stage.job = job_of({"workflow": {}})
        report = await connector.probe()
        assert report.status == "error" and "larger than 1000000 bytes" in report.detail
        with pytest.raises(RunFailed, match="a queue that is too long to be read"):
            await connector.run(stage.run())
        await connector.close()
    assert sent < 90_000_000


async def test_a_download_is_not_led_elsewhere(stage: Stage) -> None:
    """A service could have a worker fetch what only the worker's host may see."""
    asked: list[str] = []

    async def inner(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(body=b"secret")

    elsewhere = web.Application()
    elsewhere.router.add_get("/{any:.*}", inner)

    class Leading(Peer):
        async def _view(self, request: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": where})

    async with serving(elsewhere) as url:
        where = f"{url}/metadata"
        with pytest.raises(RunFailed, match="answered 302"):
            await peer_result(Leading({"1": {"images": [{"filename": "a.png"}]}}), stage)
    assert asked == []
