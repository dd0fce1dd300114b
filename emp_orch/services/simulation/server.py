"""The simulation's server: its application, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

from emp_orch.errors import EmpError
from emp_orch.services.simulation import files, png
from emp_orch.services.simulation.config import Folders, SimulationConfig, folders_below
from emp_orch.services.simulation.engine import Engine
from emp_orch.services.simulation.images import Drawn, Image
from emp_orch.services.simulation.routes.facts import Facts, features
from emp_orch.services.simulation.routes.files import Files
from emp_orch.services.simulation.routes.jobs import Jobs
from emp_orch.services.simulation.routes.prompts import Prompts
from emp_orch.services.simulation.sockets import Sockets

log = logging.getLogger("emp.simulate")


class Service:
    """Routes, sockets and the engine behind them. Paths also answer under `/api`, as ComfyUI's do."""

    def __init__(self, config: SimulationConfig) -> None:
        self._config = config
        self._sockets = Sockets(features(config) if config.speaks.feature_flags else None)
        self.engine = Engine(config, self._sockets)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=self._config.max_upload_bytes, middlewares=[_same_origin])
        engine, folders = self.engine, self._config.folders
        table = [*Prompts(engine).table(), *Files(folders).table(), *Facts(engine).table(), ("GET", "/ws", self.ws)]
        for method, path, handler in table:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, "/api" + path, handler)
        for method, path, handler in Jobs(engine).table():
            app.router.add_route(method, "/api" + path, handler)
        app.on_shutdown.append(self._on_shutdown)
        return app

    async def _on_shutdown(self, _: web.Application) -> None:
        self._sockets.close()

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        client_id = request.query.get("clientId") or uuid.uuid4().hex
        socket = web.WebSocketResponse(heartbeat=30)
        await socket.prepare(request)
        first: list[dict[str, Any]] = [
            {"type": "status", "data": {"status": self.engine.status(), "sid": client_id}},
        ]
        if self.engine.client_id == client_id and self.engine.last_node_id is not None:
            first.append({"type": "executing", "data": {"node": self.engine.last_node_id}})
        await self._sockets.serve(socket, client_id, first)
        return socket


@web.middleware
async def _same_origin(request: web.Request, handler: Any) -> web.StreamResponse:
    """Refuse what another site's page sends from a browser on this host."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return web.Response(status=403, text="cross-origin request refused")
    answer: web.StreamResponse = await handler(request)
    return answer


def _make_folders(folders: Folders) -> None:
    try:
        for folder in (folders.output, folders.temp, folders.input):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise EmpError(
            f"cannot make {e.filename or folders.output}: {e.strerror or e}",
            hint="name a writable folder with --dir, and look at its disk",
        ) from e


async def serve(config: SimulationConfig, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises EmpError when the port or the folder cannot be had."""
    shutil.rmtree(config.folders.temp, ignore_errors=True)  # at each start, as ComfyUI does
    _make_folders(config.folders)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(config.start_delay_s):
            await stop.wait()
            return
    service = Service(config)
    runner = web.AppRunner(service.app(), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        for host in config.hosts:
            await _listen(runner, host, config.port)
        log.info("simulation serves http://%s:%d, files in %s", config.hosts[0], config.port, config.folders.output)
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(service.engine.run(), name="engine")
            await stop.wait()
            work.cancel()
        log.info("simulation stops")
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, host: str, port: int) -> None:
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as e:
        raise EmpError(
            f"cannot listen on {host}:{port}: {e.strerror or e}",
            hint="another program may hold the port: choose one with --port, or see `ss -ltnp`",
        ) from e


def prepare(folder: Path) -> Path:
    """The installer's step: make the folders and draw a first picture, to see that the disk takes it."""
    folders = folders_below(folder, models=False)
    _make_folders(folders)
    try:
        drawn = Image(width=256, height=256, source=Drawn(text="emp self-test", seed=1))
        content = png.encode(png.Picture(width=256, height=256, rgb=drawn.rgb()))
        target = files.save_path("self-test", folders.temp, width=256, height=256)
        path = target.folder / target.file(0)
        path.write_bytes(content)
        if path.read_bytes() != content:
            raise EmpError(f"{path} does not hold what was written", hint="look at the disk under --dir")
        final = folder / "self-test.png"
        path.replace(final)
    except OSError as e:
        free = shutil.disk_usage(folder).free // 2**20
        raise EmpError(f"cannot write in {folder}: {e.strerror or e}", hint=f"{free} MiB are free there") from e
    return final
