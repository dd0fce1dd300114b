"""A peer that answers as ComfyUI does, with one fault of the original's at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web

from emp_orch.connectors.comfyui import ComfyUI
from emp_orch.connectors.comfyui.run.isolation import plain
from emp_orch.jobs.document.model import Result
from support.worker.connector import Stage, job_of, serving

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "sub/a"}},
}


class Original:
    """`outputs(prompt)`: what the record of a run of that prompt says; `files`: what /view has, by type/subfolder/name.

    `argv`: how it says that it was started; `viewed`: the names that /view was asked for, without their marks.
    `messages`: sent while a run goes on, `frames` while node 2 does. `history`: the messages in a run's record.
    """

    def __init__(self, outputs: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.outputs = outputs
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, Any]] = []
        self.prompts: dict[str, dict[str, Any]] = {}
        self.node_errors: dict[str, Any] = {}
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.frames: list[bytes] = []
        self.history: list[list[Any]] = []
        self.status = "success"
        self.argv: list[str] = []
        self.viewed: list[str] = []
        self.own_ids = False
        self.cancels = False
        self.drops_answer = False
        self.holds = asyncio.Event()
        self.holds.set()
        self.app = web.Application()
        self.app.router.add_get("/ws", self._ws)
        self.app.router.add_post("/prompt", self._prompt)
        self.app.router.add_get("/queue", self._queue)
        self.app.router.add_get("/history/{id}", self._history)
        self.app.router.add_get("/view", self._view)
        self.app.router.add_get("/system_stats", self._stats)
        self.app.router.add_get("/api/jobs/{id}", self._job)
        self.app.router.add_post("/{path:.*}", self._other)
        self._sockets: list[web.WebSocketResponse] = []
        self._over: set[str] = set()

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(("prompt", body))
        prompt_id = f"p{len(self.prompts) + 1}" if self.own_ids else body["prompt_id"]
        self.prompts[prompt_id] = body["prompt"]
        self._task = asyncio.create_task(self._run(prompt_id))
        if self.drops_answer:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": self.node_errors})

    async def _run(self, prompt_id: str) -> None:
        about = {"prompt_id": prompt_id}
        await self._send("executing", {**about, "node": "2"})
        for frame in self.frames:
            for socket in self._sockets:
                await socket.send_bytes(frame)
        for type_, data in self.messages:
            await self._send(type_, {**about, **data})
        await self.holds.wait()
        self._over.add(prompt_id)
        await self._send("executing", {**about, "node": None})

    async def _send(self, type_: str, data: dict[str, Any]) -> None:
        for socket in self._sockets:
            if not socket.closed:
                await socket.send_json({"type": type_, "data": data})

    async def _queue(self, _: web.Request) -> web.Response:
        rows = [[0, i, {}, {}, []] for i in self.prompts if i not in self._over]
        return web.json_response({"queue_running": rows, "queue_pending": []})

    async def _history(self, request: web.Request) -> web.Response:
        prompt_id = request.match_info["id"]
        if prompt_id not in self._over:
            return web.json_response({})
        prompt = self.prompts[prompt_id]
        status = {"status_str": self.status, "completed": self.status == "success", "messages": self.history}
        record = {"prompt": [0, prompt_id, prompt, {}, []], "outputs": self.outputs(prompt), "status": status}
        return web.json_response({prompt_id: record})

    async def _view(self, request: web.Request) -> web.Response:
        q = request.query
        self.viewed.append(plain(q["filename"]))
        body = self.files.get(f"{q['type']}/{q.get('subfolder', '')}/{q['filename']}")
        return web.Response(status=404) if body is None else web.Response(body=body)

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response({"system": {"argv": self.argv}, "devices": []})

    async def _job(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def _other(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        self.asked.append((path, await request.json()))
        if path.startswith("api/jobs/") and not self.cancels:
            return web.Response(status=405)
        if path == "interrupt" or path.startswith("api/jobs/"):
            self.status, self.history = "error", [["execution_interrupted", {}]]
            self.holds.set()
        return web.Response()

    async def _ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets.append(socket)
        await socket.receive()
        return socket


def saved_as(prompt: dict[str, Any], count: int = 1) -> list[dict[str, str]]:
    """The files that ComfyUI's SaveImage makes of node 2 of `prompt`."""
    folder, _, name = prompt["2"]["inputs"]["filename_prefix"].rpartition("/")
    return [{"filename": f"{name}_{n:05}_.png", "subfolder": folder, "type": "output"} for n in range(1, count + 1)]


def workflow(**node_2: Any) -> dict[str, Any]:
    return {"1": WORKFLOW["1"], "2": {**WORKFLOW["2"], **node_2}}


async def run_on(peer: Original, stage: Stage, payload: dict[str, Any] | None = None) -> Result:
    stage.job = job_of(payload or {"workflow": WORKFLOW})
    async with serving(peer.app) as url:
        connector = ComfyUI(url, {})
        try:
            if peer.argv:
                await connector.probe()
            return await connector.run(stage.run())
        finally:
            await connector.close()
