"""Fixtures for tests of the HTTP rooms: a real Redis, the real daemons. Conftests import them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.redis.keys import Keys
from support.http.stack import Producer, Stack


@pytest.fixture
def new_http_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes stacks that end with the test."""
    made: list[Stack] = []

    def make(**listen: Any) -> Stack:
        stack = Stack(tmp_path / f"fleet-{len(made)}", **listen)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.close()


@pytest.fixture
async def http_stack(new_http_stack: Callable[..., Stack]) -> Stack:
    made = new_http_stack()
    await made.up()
    return made


@pytest.fixture
async def producer(http_stack: Stack) -> AsyncIterator[Producer]:
    redis = http_stack.client()
    producer = Producer(redis, Keys(http_stack.settings.prefix))
    producer.seal = SigningKey(http_stack.layout, http_stack.settings.fleet).control()
    yield producer
    await redis.aclose()


@pytest.fixture
async def api(http_stack: Stack) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=http_stack.api) as session:
        yield session
