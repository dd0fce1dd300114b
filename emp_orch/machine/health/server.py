"""The machine's own health server: /health (it lives), /ready (its start-up is done), /status (its report)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from emp_orch.fleet.model.observed import MachineReport, MachineStatus


def health_app(report: Callable[[], MachineReport]) -> web.Application:
    """Read-only; answers from memory, so it works with Redis away."""

    async def health(_: web.Request) -> web.Response:
        return _json(200, {"status": "ok", "machine_id": report().machine_id})

    async def ready(_: web.Request) -> web.Response:
        now = report()
        up = now.status is MachineStatus.READY
        return _json(200 if up else 503, {"ready": up, "status": now.status, "error": now.error})

    async def status(_: web.Request) -> web.Response:
        return _json(200, report())

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/ready", ready), web.get("/status", status)])
    return app


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


async def serve(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listen on `port` (0: any free one); returns the runner to clean up and the port it got."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    bound: int = runner.addresses[0][1]
    return runner, bound
