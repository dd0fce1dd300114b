"""Fixtures for tests of workers: a Redis of each test's own, daemons started beside it. Conftests import them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from emp_orch.store.redis.client import Client, client
from support.redis.server import Server, running_server
from support.worker.processes import Bench, bench


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server("redis", tmp_path / "redis") as made:
        yield made


@pytest.fixture
def stage(tmp_path: Path, server: Server) -> Iterator[Bench]:
    with bench(tmp_path, server) as made:
        yield made


@pytest.fixture
async def r(server: Server) -> AsyncIterator[Client]:
    made = client(server.url)
    yield made
    await made.aclose()
