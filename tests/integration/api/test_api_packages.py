"""Worker packages over HTTP: served whole and in part, to so many at once, to who has the token."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from emp_orch.api.admission import DOWNLOADS
from emp_orch.control.plane.packing import keep_own, own_package
from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.machine.package.fetch import FetchError, fetch
from emp_orch.store.artifacts.api_access import ApiAccess
from support.http.stack import Stack
from support.machine.package import Server, digest_of, small
from support.redis.server import until

LARGE = secrets.token_bytes(1024) * 32 * 1024


def _put(stack: Stack, archive: bytes) -> str:
    stack.layout.packages.mkdir(exist_ok=True)
    digest = hashlib.sha256(archive).hexdigest()
    stack.layout.package(digest).write_bytes(archive)
    return digest


async def test_this_emps_package_is_served(http_stack: Stack, api: aiohttp.ClientSession) -> None:
    keep_own(http_stack.layout)
    digest = own_package().digest
    async with api.get(f"/packages/{digest}") as answer:
        archive = await answer.read()
        assert (answer.status, answer.headers["ETag"]) == (200, f'"{digest}"')
        assert hashlib.sha256(archive).hexdigest() == digest
    async with api.get(f"/packages/{digest}", headers={"If-None-Match": f'"{digest}"'}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with api.get(f"/packages/{digest}", headers={"Range": "bytes=1000-"}) as answer:
        assert (answer.status, await answer.read()) == (206, archive[1000:])
        assert answer.headers["Content-Range"] == f"bytes 1000-{len(archive) - 1}/{len(archive)}"
    async with api.get(f"/packages/{digest}", headers={"Range": f"bytes={len(archive)}-"}) as answer:
        assert answer.status == 416


@pytest.mark.parametrize("name", ["0" * 64, "..%2Fgeneration.json", "x", "A" * 64])
async def test_what_is_no_package_is_404(http_stack: Stack, api: aiohttp.ClientSession, name: str) -> None:
    http_stack.layout.packages.mkdir()
    http_stack.layout.package("0" * 64).symlink_to("/etc/passwd")
    async with api.get(f"/packages/{name}") as answer:
        assert answer.status == 404 and (await answer.json())["success"] is False


async def test_so_many_at_once(http_stack: Stack, api: aiohttp.ClientSession) -> None:
    """Who comes when all places are taken hears when to come again; a place that is left is given to the next."""
    digest = _put(http_stack, LARGE)
    slow = []
    try:
        for _ in range(DOWNLOADS):
            slow.append(sock := socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", http_stack.settings.api.port))
            sock.sendall(f"GET /packages/{digest} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert await asyncio.to_thread(sock.recv, 12) == b"HTTP/1.1 200"
        async with api.get(f"/packages/{digest}") as answer:
            assert answer.status == 429 and int(answer.headers["Retry-After"]) > 0
            assert (await answer.json())["error"] == "too many downloads at once; come again"
        async with api.get("/health") as answer:
            assert answer.status == 200
        slow.pop().close()

        async def place() -> bool:
            async with api.get(f"/packages/{digest}") as answer:
                return answer.status == 200 and await answer.read() == LARGE

        await until(place)
    finally:
        for sock in slow:
            sock.close()


async def test_machines_bring_the_token(new_http_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = new_http_stack(token="hunter2")
    stack.start_redis()
    stack.start("api")
    await stack.answers(f"{stack.api}/health")
    archive = small("x")
    package = WorkerPackage(digest=_put(stack, archive))
    with pytest.raises(FetchError, match="answered 401"):
        await fetch(package, ApiAccess(url=stack.api), tmp_path / "part", wanted=lambda: True)
    await fetch(package, ApiAccess(url=stack.api, token="hunter2"), tmp_path / "part", wanted=lambda: True)
    assert (tmp_path / "part").read_bytes() == archive


async def test_https_is_verified(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is refused, unless its file is named."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]
    argv += ["/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    archive = small("x")
    app = web.Application()
    app.router.add_get("/{path:.*}", Server(archive).answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        package = WorkerPackage(digest=digest_of(archive))
        with pytest.raises(FetchError, match=r"certificate verify failed"):
            await fetch(package, ApiAccess(url=url), tmp_path / "part", wanted=lambda: True)
        await fetch(package, ApiAccess(url=url, ca=str(cert)), tmp_path / "part", wanted=lambda: True)
    finally:
        await runner.cleanup()
    assert (tmp_path / "part").read_bytes() == archive
