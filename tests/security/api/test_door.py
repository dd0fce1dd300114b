"""What reaches a server's door before anybody knows who calls: packed bodies, no HTTP at all, tokens that are none."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from emp_orch.control.apply.proposal import read_proposal
from emp_orch.errors import UsageError
from emp_orch.loglines import log_handler
from emp_orch.web.connections import Connections
from emp_orch.web.errors import errors_as_json
from emp_orch.web.guard import Guard, guarded
from emp_orch.web.serve import listening
from support.http.stack import free_port
from support.redis.server import until

TOKEN = "sesame-of-the-test"
BOMB_BYTES = 128 * 1024 * 1024


@pytest.fixture
async def door() -> AsyncIterator[int]:
    """The port of a server as API and page are, that reads the bodies of those who know the token."""

    async def read(request: web.Request) -> web.Response:
        return web.json_response({"read": len(await request.read())})

    guard = Guard(loopback=True, token=TOKEN, origins=frozenset(), is_open=lambda request: False)
    app = web.Application(client_max_size=1024**2, middlewares=[errors_as_json((), lambda e: str(e)), guarded(guard)])
    app.router.add_post("/read", read)
    port = free_port()
    async with listening(app, what="the test", host="127.0.0.1", port=port):
        yield port


def _bomb() -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(BOMB_BYTES // 1024**2):
            file.write(bytes(1024**2))
    return packed.getvalue()


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_packed_body_is_never_unpacked(door: int) -> None:
    bomb, url = _bomb(), f"http://127.0.0.1:{door}/read"
    before = _most_bytes()
    async with aiohttp.ClientSession(headers={"Content-Encoding": "gzip"}) as session:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            async with session.post(url, data=bomb, headers=headers) as answer:
                told = await answer.json()
                assert answer.status == 415 and "not taken as gzip" in told["error"], told
                assert answer.headers["Accept-Encoding"] == "identity"
    assert _most_bytes() - before < BOMB_BYTES // 8
    async with aiohttp.ClientSession() as session, session.post(url, data=b"x", params={"token": TOKEN}) as answer:
        assert await answer.json() == {"read": 1}


@pytest.mark.parametrize(
    "line",
    [
        f"GET /read?token={TOKEN} and more HTTP/1.1\r\n\r\n",
        f"GET /read HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\r\n\r\n",
        f"GET /read HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\x01\r\n\r\n",
        f"GET /read HTTP/1.1\r\nHost: x\r\nHost{TOKEN} : y\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_not_repeated_in_the_log(door: int, line: str) -> None:
    written = io.StringIO()
    handler = log_handler()
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    logging.getLogger().addHandler(handler)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.write(b"GET /read HTTP/1.1\r\nHost: localhost\r\n\r\n" + line.encode())
        async with asyncio.timeout(60):
            while await reader.read(4096):
                pass
        writer.close()
    finally:
        logging.getLogger().removeHandler(handler)
    told = written.getvalue()
    assert TOKEN not in told and "Traceback" not in told, told


async def test_who_is_silent_shuts_nobody_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """More connections than the process may open files, from an address of their own: the others are served."""
    monkeypatch.setattr("emp_orch.web.connections.KEPT_BACK", _soft_limit() - _open_files() - 700)
    monkeypatch.setattr("emp_orch.web.serve.IDLE_S", 2.0)

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    port = free_port()
    async with listening(app, what="the test", host="0.0.0.0", port=port):
        silent = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.9", 0)) for _ in range(800)]
        try:
            async with aiohttp.ClientSession() as session:

                async def served() -> bool:
                    try:
                        async with session.get(f"http://127.0.0.1:{port}/") as answer:
                            return await answer.text() == "hello"
                    except aiohttp.ClientError:
                        return False  # there is no room until the silent ones are closed

                await until(served)
            async with asyncio.timeout(60):  # every one of them is closed
                for reader, _ in silent:
                    with suppress(ConnectionError):
                        assert await reader.read() == b""
        finally:
            for _, writer in silent:
                writer.close()
    told = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
    assert len(told) == 1 and "from 127.0.0.9" in told[0]


def _soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("address", "most"), [("10.0.0.1", 3), ("127.0.0.1", 5), ("::1", 5), ("", 5), ("192.168.0.7", 3)]
)
def test_one_address_holds_so_many_and_no_others(address: str, most: int) -> None:
    held = Connections(3, 5, 100)
    came = [held.came(n, address) for n in range(8)]
    assert came == [n < most for n in range(8)]
    assert held.came("another", "10.0.0.2")
    for n in range(8):
        held.went(n)
    assert held.came("again", address)


def test_who_is_known_counts_no_more_with_its_address() -> None:
    """As the sockets of members, of which each has its own bound: all may come through one proxy."""
    held = Connections(3, 5, 12)
    for n in range(10):
        assert held.came(n, "10.0.0.1")
        held.known(n)
        held.known(n)
    assert [held.came(f"stranger {n}", "10.0.0.1") for n in range(3)] == [True, True, False]  # twelve in all
    assert "2 of them from 10.0.0.1" not in held.to_tell(0.0) and "3 of them from 10.0.0.1" in held.to_tell(100.0)
    for n in range(10):
        held.went(n)
    held.known(0)  # it is gone
    assert held.came("another", "10.0.0.2")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\n", "is empty: everybody would be let in"),
        (b" \r\n", "is empty: everybody would be let in"),
        (b"one two\n", "no HTTP header carries"),
        ("tok\u00e9n\n".encode(), "no HTTP header carries"),
    ],
)
@pytest.mark.parametrize("where", ["api", "monitor"])
def test_a_token_that_lets_everybody_in_or_nobody_is_refused(
    tmp_path: Path, where: str, content: bytes, why: str
) -> None:
    (tmp_path / "token").write_bytes(content)
    file = tmp_path / "emp.yaml"
    file.write_text(
        f"version: 1\nname: t\n{where}: {{token: {{file: token}}}}\n"
        "services: {simulation: {builtin: simulation, scale: per_gpu, port: 8188}}\n"
        "machines: {m: {num_gpus: 1, services: []}}\n"
    )
    with pytest.raises(UsageError) as refused:
        read_proposal(file, {})
    assert f"{where}.token: token {why}" in refused.value.message or why in refused.value.message


def test_the_end_of_a_line_is_no_part_of_a_token(tmp_path: Path) -> None:
    """A file written on Windows, or by an editor."""
    (tmp_path / "token").write_bytes(b"sesame\r\n")
    file = tmp_path / "emp.yaml"
    file.write_text(
        "version: 1\nname: t\napi: {token: {file: token}}\n"
        "services: {simulation: {builtin: simulation, scale: per_gpu, port: 8188}}\n"
        "machines: {m: {num_gpus: 1, services: []}}\n"
    )
    _, proposal = read_proposal(file, {})
    assert proposal.settings.api.token == "sesame"
