"""One Chromium and one stack for each file; a test that breaks a daemon starts it again."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.redis.keys import Keys
from support.http.browser import ARGS, CHROMIUM, Watched
from support.http.fixtures import new_http_stack
from support.http.stack import Producer, Stack

__all__ = ["new_http_stack"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"no Chromium at {CHROMIUM}")
    async with async_playwright() as p:
        launched = await p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield launched
        await launched.close()


@pytest.fixture(scope="module")
def module_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("page") / "fleet")
    with stack.running():
        yield stack


@pytest_asyncio.fixture(loop_scope="module")
async def http_stack(module_stack: Stack) -> Stack:
    """Up, with an empty Redis."""
    if module_stack.redis is None:
        await module_stack.up()
    redis = module_stack.client()
    await redis.flushall()
    await redis.aclose()
    return module_stack


@pytest_asyncio.fixture(loop_scope="module")
async def producer(http_stack: Stack) -> AsyncIterator[Producer]:
    redis = http_stack.client()
    producer = Producer(redis, Keys(http_stack.settings.prefix))
    producer.seal = SigningKey(http_stack.layout, http_stack.settings.fleet).control()
    yield producer
    await redis.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def watched(browser: Browser) -> AsyncIterator[Watched]:
    made = await Watched.new(browser)
    yield made
    await made.close()
