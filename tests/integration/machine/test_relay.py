"""The socket in a machine's folder that leads to Redis through the API: whose it is, where, and what is told."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from redis import exceptions as rexc

from emp_orch.errors import EmpError
from emp_orch.machine.agent.relay import Relay
from emp_orch.machine.home.redis_socket import MAX_SOCKET_PATH, socket_of, url_of
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.artifacts.api_access import ApiAccess
from emp_orch.store.redis.client import client


@asynccontextmanager
async def api_that(status: int, asked_with: list[str] | None = None) -> AsyncIterator[str]:
    """The URL of an API whose gate says this, and to come again in a minute; `asked_with` takes each login."""

    async def refuse(request: web.Request) -> web.Response:
        if asked_with is not None:
            asked_with.append(request.headers["Authorization"])
        return web.Response(status=status, headers={"Retry-After": "60"})

    app = web.Application()
    app.router.add_get(GATE_PATH, refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def reaches(root: Path, url: str, token: str = "t") -> None:
    (root / "api.json").write_bytes(msgspec.json.encode(ApiAccess(url=url, token=token)))


async def asked(root: Path) -> Exception:
    r = client(url_of(root))
    try:
        await r.ping()
    except rexc.RedisError as e:
        return e
    finally:
        await r.aclose()
    raise AssertionError("it answered")


async def test_only_its_own_user_may_connect(tmp_path: Path) -> None:
    async with Relay(tmp_path, GATE_PATH):
        found = socket_of(tmp_path).stat()
        assert socket_of(tmp_path) == tmp_path / "redis.sock"
        assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600
    # The next life takes the place of the former, however that ended.
    async with Relay(tmp_path, GATE_PATH):
        assert isinstance(await asked(tmp_path), rexc.ConnectionError)


async def test_a_folder_with_a_long_path_has_it_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = tmp_path / ("x" * MAX_SOCKET_PATH)
    root.mkdir()
    where = socket_of(root)
    assert where.parent.parent == tmp_path and where != socket_of(root.with_name("y" * MAX_SOCKET_PATH))
    async with api_that(403) as url, Relay(root, GATE_PATH):
        reaches(root, url)
        assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
        assert isinstance(await asked(root), rexc.AuthenticationError)
    where.unlink()
    where.parent.rmdir()
    where.parent.symlink_to(tmp_path)
    with pytest.raises(EmpError, match="cannot listen"):
        await Relay(root, GATE_PATH).__aenter__()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, rexc.AuthenticationError),
        (403, rexc.AuthenticationError),
        (429, rexc.ConnectionError),
        (503, rexc.ConnectionError),
    ],
)
async def test_a_token_that_is_void_is_told_from_an_api_that_is_away(
    tmp_path: Path, status: int, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async with api_that(status) as url, Relay(tmp_path, GATE_PATH):
        reaches(tmp_path, url)
        assert type(await asked(tmp_path)) is kind
        await asked(tmp_path)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 1 and f"the API says {status}" in said[0]


async def test_a_token_that_is_void_is_not_shown_again_and_again_and_another_is_shown_at_once(tmp_path: Path) -> None:
    asked_with: list[str] = []
    async with api_that(403, asked_with) as url, Relay(tmp_path, GATE_PATH):
        reaches(tmp_path, url)
        for _ in range(20):
            assert type(await asked(tmp_path)) is rexc.AuthenticationError
        assert asked_with == ["Bearer t"]
        reaches(tmp_path, url, "another")
        assert type(await asked(tmp_path)) is rexc.AuthenticationError
    assert asked_with == ["Bearer t", "Bearer another"]


async def test_no_api_and_no_word_where_it_is_are_redis_that_is_away(tmp_path: Path) -> None:
    async with Relay(tmp_path, GATE_PATH):
        assert isinstance(await asked(tmp_path), rexc.ConnectionError)
        reaches(tmp_path, "http://127.0.0.1:9")
        assert isinstance(await asked(tmp_path), rexc.ConnectionError)
        reader, writer = await asyncio.open_unix_connection(str(socket_of(tmp_path)))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert os.path.lexists(socket_of(tmp_path))
