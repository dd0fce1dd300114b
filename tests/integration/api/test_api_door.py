"""The door: what machines in containers of this host may ask the API for, on an address beside loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from emp_orch.control.plane.packing import keep_own, own_package
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from support.http.stack import Stack

# One of this host, and one that it does not have: an engine's bridge may come later than the API.
HERE, NOT_YET = "127.0.0.2", "203.0.113.7"


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    stack = Stack(tmp_path, door=(HERE, NOT_YET))
    with stack.running():
        keep_own(stack.layout)
        await stack.up()
        yield stack


async def test_it_hands_out_packages_to_machines_and_nothing_else(stack: Stack) -> None:
    tokens, fleet = JoinTokens(stack.layout), stack.settings.fleet
    mine = {"Authorization": f"Bearer {tokens.issue(fleet, 'box', expires_s=None)}"}
    path = f"/packages/{own_package().digest}"
    async with aiohttp.ClientSession(f"http://{HERE}:{stack.settings.api.port}") as door:
        async with door.get(path, headers=mine) as answer:
            assert answer.status == 200
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {'é' * 40}"}):
            async with door.get(path, headers=headers) as answer:
                assert (answer.status, (await answer.json())["success"]) == (401, False)
        for other in ("/api/monitor/state", "/health", "/packages/", "/openapi.json", "/api/machines/box/join"):
            async with door.get(other, headers=mine) as answer:
                assert answer.status in (401, 404), other
        async with door.post("/api/machines/box/join", headers=mine) as answer:
            assert answer.status in (401, 404, 405)
        tokens.revoke("box")
        async with door.get(path, headers=mine) as answer:
            assert answer.status == 401
