"""Worker packages for tests: small ones that import, hostile ones, and a server that misbehaves on demand."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# The least that a machine takes for emp's modules.
MODULES = {
    "emp_orch/__init__.py": b"",
    "emp_orch/cli/__init__.py": b"",
    "emp_orch/cli/worker.py": b"",
    "emp_orch/worker/__init__.py": b"",
    "emp_orch/worker/daemon.py": b"",
}


def tar_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def small(version: str, **more: bytes) -> bytes:
    """An archive that imports; each `version` is another."""
    return tar_of({**MODULES, "emp_orch/version.py": version.encode(), **more})


def digest_of(archive: bytes) -> str:
    return hashlib.sha256(archive).hexdigest()


def files_below(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.py")}


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The URL of a server on a free port that answers every GET with `handler`."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Server:
    """Serves archives by digest; `faults` are what it does first, one for each request."""

    def __init__(self, *archives: bytes) -> None:
        self.archives = {digest_of(a): a for a in archives}
        self.faults: list[str] = []
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.headers)))
        archive = self.archives.get(request.path.rpartition("/")[2])
        if archive is None:
            return web.Response(status=404)
        fault = self.faults.pop(0) if self.faults else ""
        match fault:
            case "":
                start = request.http_range.start or 0
                headers = {"Content-Range": f"bytes {start}-{len(archive) - 1}/{len(archive)}"} if start else {}
                return web.Response(status=206 if start else 200, body=archive[start:], headers=headers)
            case "429":
                return web.Response(status=429, headers={"Retry-After": "0"})
            case "500":
                return web.Response(status=500)
            case "redirect":
                raise web.HTTPFound("/elsewhere")
            case "wrong bytes":
                return web.Response(body=b"x" + archive[1:])
            case "other range":
                return web.Response(status=206, body=archive, headers={"Content-Range": "bytes 7-9/10"})
            case "no range":
                return web.Response(status=416)
            case "whole":
                return web.Response(body=archive)
            case "endless":
                return await self._send(request, archive, times=1_000_000)
            case "cut" | "stall":
                return await self._half(request, archive, fault)
        raise AssertionError(fault)

    async def _half(self, request: web.Request, archive: bytes, fault: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(len(archive))})
        await response.prepare(request)
        await response.write(archive[: len(archive) // 2])
        if fault == "stall":
            await asyncio.Event().wait()
        assert request.transport is not None
        request.transport.close()
        return response

    async def _send(self, request: web.Request, chunk: bytes, *, times: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(times):
            await response.write(chunk)
        return response
