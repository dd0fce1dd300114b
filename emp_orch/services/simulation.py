"""The simulation service: an HTTP and WebSocket server that speaks ComfyUI's protocol, and `/health`."""

from __future__ import annotations

import asyncio
import logging
import mimetypes
import platform
import resource
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import WSCloseCode, web
from msgspec import Struct

from emp_orch import __version__
from emp_orch.errors import EmpError
from emp_orch.services import nodes, png
from emp_orch.services.engine import Engine, QueueFull, inside, write_next

log = logging.getLogger("emp.simulate")

MAX_BODY = 32 * 1024 * 1024
# Messages a client may lag behind before it is dropped; it reconnects and reads /history.
CLIENT_BACKLOG = 1_000

Handler = web.Request


class SimulationConfig(Struct, frozen=True, kw_only=True):
    """`steps` caps the steps of a sampler; `step_s` is how long one takes. `gpu` is None for a shared service."""

    host: str
    port: int
    folder: Path
    gpu: int | None
    steps: int
    step_s: float


def _json(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")


class Clients:
    """Open WebSockets by client id; each has a bounded backlog of its own, so that a slow one delays nobody."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[bytes | None]] = {}

    def send(self, type_: str, data: dict[str, Any], client_id: str | None) -> None:
        text = msgspec.json.encode({"type": type_, "data": data})
        targets = list(self._queues) if client_id is None else [client_id]
        for target in targets:
            queue = self._queues.get(target)
            if queue is None:
                continue
            if queue.qsize() >= CLIENT_BACKLOG:
                self.drop(target, queue)
            else:
                queue.put_nowait(text)

    def join(self, client_id: str) -> asyncio.Queue[bytes | None]:
        if (before := self._queues.get(client_id)) is not None:
            self.drop(client_id, before)
        queue = self._queues[client_id] = asyncio.Queue()
        return queue

    def drop(self, client_id: str, queue: asyncio.Queue[bytes | None]) -> None:
        """End this connection; a newer one under the same id stays."""
        if self._queues.get(client_id) is queue:
            del self._queues[client_id]
        queue.put_nowait(None)

    def close(self) -> None:
        for client_id, queue in list(self._queues.items()):
            self.drop(client_id, queue)


class Service:
    """The routes. Paths also answer under `/api`, as ComfyUI's do."""

    def __init__(self, config: SimulationConfig) -> None:
        self._config = config
        self._clients = Clients()
        self._started = time.monotonic()
        self.engine = Engine(config.folder, steps=config.steps, step_s=config.step_s, send=self._clients.send)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_same_origin])
        routes = [
            ("GET", "/health", self.health),
            ("GET", "/prompt", self.get_prompt),
            ("POST", "/prompt", self.post_prompt),
            ("GET", "/queue", self.get_queue),
            ("POST", "/queue", self.post_queue),
            ("GET", "/history", self.get_history),
            ("POST", "/history", self.post_history),
            ("GET", "/history/{prompt_id}", self.get_history),
            ("POST", "/interrupt", self.interrupt),
            ("POST", "/free", self.free),
            ("GET", "/system_stats", self.system_stats),
            ("GET", "/object_info", self.object_info),
            ("GET", "/object_info/{node}", self.object_info),
            ("GET", "/view", self.view),
            ("GET", "/ws", self.ws),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, "/api" + path, handler)
        app.on_shutdown.append(self._on_shutdown)
        return app

    async def _on_shutdown(self, _: web.Application) -> None:
        self._clients.close()

    async def health(self, _: Handler) -> web.Response:
        engine = self.engine
        return _json(
            {
                "status": "ok",
                "service": "simulation",
                "version": __version__,
                "gpu": self._config.gpu,
                "busy": engine.running is not None,
                "queue_remaining": engine.remaining,
                "uptime_s": round(time.monotonic() - self._started, 3),
            }
        )

    async def get_prompt(self, _: Handler) -> web.Response:
        return _json(self.engine.status())

    async def post_prompt(self, request: Handler) -> web.Response:
        body = await _body(request)
        if "prompt" not in body:
            error = nodes.problem("no_prompt", "No prompt provided", "No prompt provided")
            return _json({"error": error, "node_errors": {}}, 400)
        match nodes.validate(body["prompt"]):
            case nodes.Invalid(error=error, node_errors=node_errors):
                log.info("prompt refused: %s", error["message"])
                return _json({"error": error, "node_errors": node_errors}, 400)
            case (prompt, outputs):
                pass
        extra = body.get("extra_data")
        extra_data = dict(extra) if isinstance(extra, dict) else {}
        if "client_id" in body:
            extra_data["client_id"] = body["client_id"]
        prompt_id = str(body.get("prompt_id") or uuid.uuid4())
        try:
            entry = self.engine.submit(prompt_id, prompt, outputs, extra_data, front=bool(body.get("front")))
        except QueueFull:
            error = nodes.problem("queue_full", "The queue is full", "try again later")
            return _json({"error": error, "node_errors": {}}, 503)
        return _json({"prompt_id": prompt_id, "number": entry.number, "node_errors": {}})

    async def get_queue(self, _: Handler) -> web.Response:
        running = [self.engine.running.row()] if self.engine.running else []
        return _json({"queue_running": running, "queue_pending": [e.row() for e in self.engine.pending]})

    async def post_queue(self, request: Handler) -> web.Response:
        body = await _body(request)
        if body.get("clear"):
            self.engine.delete(None)
        if isinstance(body.get("delete"), list):
            self.engine.delete({str(i) for i in body["delete"]})
        return web.Response()

    async def get_history(self, request: Handler) -> web.Response:
        history = self.engine.history
        wanted = request.match_info.get("prompt_id")
        if wanted is not None:
            return _json({wanted: history[wanted].history()} if wanted in history else {})
        limit = request.query.get("max_items", "")
        entries = list(history.items())[-int(limit) :] if limit.isdecimal() and int(limit) else list(history.items())
        return _json({i: e.history() for i, e in entries})

    async def post_history(self, request: Handler) -> web.Response:
        body = await _body(request)
        if body.get("clear"):
            self.engine.forget(None)
        if isinstance(body.get("delete"), list):
            self.engine.forget({str(i) for i in body["delete"]})
        return web.Response()

    async def interrupt(self, request: Handler) -> web.Response:
        body = await _body(request) if request.can_read_body else {}
        prompt_id = body.get("prompt_id")
        self.engine.interrupt(prompt_id if isinstance(prompt_id, str) else None)
        return web.Response()

    async def free(self, _: Handler) -> web.Response:
        """Accepted for clients that ask ComfyUI to unload its models; there are none here."""
        return web.Response()

    async def system_stats(self, _: Handler) -> web.Response:
        return _json(_system_stats(self._config.gpu))

    async def object_info(self, request: Handler) -> web.Response:
        wanted = request.match_info.get("node")
        names = list(nodes.NODES) if wanted is None else [wanted] if wanted in nodes.NODES else []
        return _json({name: nodes.object_info(name) for name in names})

    async def view(self, request: Handler) -> web.StreamResponse:
        query = request.query
        name, kind = query.get("filename", ""), query.get("type", "output")
        if not name or "/" in name or kind not in ("output", "temp", "input"):
            return web.Response(status=400, text="bad filename or type")
        folder = self._config.folder / kind
        path = inside(folder, f"{query.get('subfolder') or '.'}/{name}")
        if path is None:
            return web.Response(status=403, text="outside of the folder")
        if not path.is_file():
            return web.Response(status=404, text="no such file")
        content_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return web.FileResponse(path, headers={"Content-Type": content_type, "X-Content-Type-Options": "nosniff"})

    async def ws(self, request: Handler) -> web.WebSocketResponse:
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        socket = web.WebSocketResponse(heartbeat=30)
        await socket.prepare(request)
        queue = self._clients.join(client_id)
        hello = {"type": "status", "data": {"status": self.engine.status(), "sid": client_id}}
        running = self.engine.running
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(_pump(socket, msgspec.json.encode(hello), queue), name=f"ws {client_id}")
            if running is not None and running.client_id == client_id:
                self._clients.send("execution_start", {"prompt_id": running.prompt_id}, client_id)
            async for _ in socket:
                pass  # a client has nothing to say; reading notices its end
            self._clients.drop(client_id, queue)
            await sender
        return socket


async def _pump(socket: web.WebSocketResponse, hello: bytes, queue: asyncio.Queue[bytes | None]) -> None:
    """Send what the queue holds until it says None or the client is gone."""
    try:
        await socket.send_str(hello.decode())
        while (text := await queue.get()) is not None:
            await socket.send_str(text.decode())
        await socket.close(code=WSCloseCode.GOING_AWAY, message=b"this connection was replaced or lagged behind")
    except ConnectionError:
        return


@web.middleware
async def _same_origin(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse what another site's page sends from a browser on this host."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return web.Response(status=403, text="cross-origin request refused")
    answer: web.StreamResponse = await handler(request)
    return answer


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object. Raises 400 in ComfyUI's form."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as e:
        error = nodes.problem("invalid_json", "The request is not a JSON object", str(e))
        text = msgspec.json.encode({"error": error, "node_errors": {}}).decode()
        raise web.HTTPBadRequest(text=text, content_type="application/json") from e


def _system_stats(gpu: int | None) -> dict[str, Any]:
    """In ComfyUI's form; the device is a stand-in and says so."""
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    device = {
        "name": f"simulated:{gpu or 0}",
        "type": "cpu",
        "index": gpu or 0,
        "vram_total": 0,
        "vram_free": 0,
        "torch_vram_total": 0,
        "torch_vram_free": 0,
    }
    system = {
        "os": platform.system().lower(),
        "comfyui_version": f"emp-simulation {__version__}",
        "python_version": sys.version,
        "pytorch_version": "",
        "embedded_python": False,
        "argv": sys.argv[:1],
        "ram_used": rss,
    }
    return {"system": system, "devices": [device]}


def _make_folders(folder: Path) -> None:
    try:
        for kind in ("output", "temp", "input"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EmpError(
            f"cannot make {folder}: {e.strerror or e}", hint="name a writable folder with --dir, and look at its disk"
        ) from e


async def serve(config: SimulationConfig, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises EmpError when the port or the folder cannot be had."""
    _make_folders(config.folder)
    service = Service(config)
    runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, config.host, config.port).start()
        except OSError as e:
            raise EmpError(
                f"cannot listen on {config.host}:{config.port}: {e.strerror or e}",
                hint="another program may hold the port: choose one with --port, or see `ss -ltnp`",
            ) from e
        log.info("simulation serves http://%s:%d, files in %s", config.host, config.port, config.folder)
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(service.engine.run(), name="engine")
            await stop.wait()
            work.cancel()
        log.info("simulation stops")
    finally:
        await runner.cleanup()


def prepare(folder: Path) -> Path:
    """The installer's step: make the folders and draw a first picture, to see that the disk takes it."""
    _make_folders(folder)
    try:
        path = write_next(folder / "temp" / "self-test", png.draw("emp self-test", 1))
        if not path.read_bytes().startswith(png.SIGNATURE):
            raise EmpError(f"{path} does not hold what was written", hint="look at the disk under --dir")
        final = folder / "self-test.png"
        path.replace(final)
    except OSError as e:
        free = shutil.disk_usage(folder).free // 2**20
        raise EmpError(f"cannot write in {folder}: {e.strerror or e}", hint=f"{free} MiB are free there") from e
    return final
