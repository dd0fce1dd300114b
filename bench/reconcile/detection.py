"""How soon a change is seen: from an agent's write to the drift in the status document, and over the API.

`emp reconcile` and `emp api` run as they are, on a simulated fleet. Nobody polls: the events stream and the API's
own say when to look.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from bench.queue.measure import quantile
from bench.queue.server import BenchRedis, free_port
from bench.reconcile import simulated
from bench.reconcile.children import Child, Failed, child, daemon
from bench.reconcile.plan import Plan
from emp_orch import settings
from emp_orch.layout import Layout
from emp_orch.settings import Settings
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.status import read_status
from emp_orch.store.redis.client import Client, client
from emp_orch.store.redis.keys import Keys

SEEN_S = 20.0
CHANGED = "drift_changed"


class Detection(Struct, frozen=True, kw_only=True):
    """Milliseconds of each change: until `fleet:…:status` told it, and until `GET /api/drift` did."""

    machines: int
    changes: int
    status_ms: tuple[float, ...]
    api_ms: tuple[float, ...]

    def quantile(self, name: str, part: float) -> float:
        return quantile(sorted(getattr(self, name)), part)


class Status:
    """The status document, looked at whenever the stream says that it has changed."""

    def __init__(self, r: Client) -> None:
        self._r = r
        self._keys = Keys()
        self._events = Events(r, self._keys)

    async def begin(self) -> str:
        return await self._events.latest_id()

    async def tells(self, key: str, *, there: bool, after: str) -> int:
        """Wait until drift `key` is in it, or no longer; when that was seen, in ns."""
        async for batch in self._events.follow(after):
            if any(e.type == CHANGED for e in batch):
                status = await read_status(self._r, self._keys, simulated.FLEET)
                if status is not None and any(d.drift.key == key for d in status.drift) is there:
                    return time.monotonic_ns()
        raise Failed("the events stream ended")


class Api:
    """`GET /api/drift`, asked whenever the API's stream of events says that the drift has changed."""

    def __init__(self, session: aiohttp.ClientSession, stream: aiohttp.ClientResponse) -> None:
        self._session = session
        self._stream = stream

    async def _next(self) -> None:
        async for line in self._stream.content:
            if line.strip() == f"event: {CHANGED}".encode():
                return
        raise Failed("the API ended its stream of events")

    async def tells(self, key: str) -> int:
        """Wait until drift `key` is among what it answers; when that was seen, in ns."""
        while True:
            await self._next()
            async with self._session.get("/api/drift") as answer:
                found = json.loads(await answer.read())["data"]["drift"]
            if any(_key(d) == key for d in found):
                return time.monotonic_ns()


def _key(drift: dict[str, Any]) -> str:
    return f"{drift['kind']}/{drift['machine_id']}/{drift['subject']}"


@asynccontextmanager
async def _listening(url: str, position: str) -> AsyncIterator[Api]:
    """A session with the API at `url`, its events from `position` on. Raises Failed when it does not come up."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(url))
        await _until_ready(session)
        asked = session.get(
            "/api/events/monitor", headers={"Last-Event-ID": position}, timeout=aiohttp.ClientTimeout(total=None)
        )
        yield Api(session, await stack.enter_async_context(asked))


async def _until_ready(session: aiohttp.ClientSession) -> None:
    deadline = time.monotonic() + SEEN_S
    while time.monotonic() < deadline:
        try:
            async with session.get("/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        await asyncio.sleep(0.05)
    raise Failed("emp api did not become ready")


def _write_settings(folder: Path, redis: BenchRedis) -> Settings:
    """What `emp apply` leaves for the daemons."""
    layout = Layout(folder)
    layout.control.mkdir(parents=True, exist_ok=True)
    made = simulated.settings_of(redis.url, layout, api=free_port(), monitor=free_port())
    settings.save(layout, made)
    return made


def measure(redis: BenchRedis, folder: Path, plan: Plan) -> Detection:
    """Changes in turn, each waited for until everybody has seen it. Raises Failed."""
    redis.clear()
    made = _write_settings(folder, redis)
    emp = (sys.executable, "-m", "emp_orch", "-C", str(folder))
    size = (str(plan.detect_in), str(plan.gpus))
    with ExitStack() as stack:
        writer = stack.enter_context(child("bench.reconcile.writer", redis.url, *size, log=folder / "writer.log"))
        writer.ask("ready")
        for name in ("api", "reconcile"):
            stack.enter_context(daemon((*emp, name), log=folder / f"{name}.log"))
        return asyncio.run(_changes(redis, writer, made.api.url, plan))


async def _changes(redis: BenchRedis, writer: Child, api_url: str, plan: Plan) -> Detection:
    r = client(redis.url)
    status = Status(r)
    gaps = random.Random(0)
    status_ms, api_ms = [], []
    try:
        async with asyncio.timeout(SEEN_S):
            await _until_led(r)
        async with _listening(api_url, await status.begin()) as api:
            for number in range(plan.changes):
                # Nothing falls into step with the reconciler's own interval.
                await asyncio.sleep(gaps.uniform(0.1, 0.6))
                async with asyncio.timeout(SEEN_S):
                    began_ns, seen_ns, api_ns = await _change(writer, status, api, number % plan.detect_in)
                status_ms.append((seen_ns - began_ns) / 1e6)
                api_ms.append((api_ns - began_ns) / 1e6)
    except TimeoutError:
        raise Failed(f"a change was not seen in {SEEN_S:.0f} s") from None
    finally:
        await r.aclose()
    return Detection(machines=plan.detect_in, changes=plan.changes, status_ms=tuple(status_ms), api_ms=tuple(api_ms))


async def _until_led(r: Client) -> None:
    """Until the reconciler has compared the fleet once, and found it in order."""
    while (found := await read_status(r, Keys(), simulated.FLEET)) is None or not found.in_sync:
        await asyncio.sleep(0.05)


async def _change(writer: Child, status: Status, api: Api, machine: int) -> tuple[int, int, int]:
    """A program of `machine` goes away and comes back: when it went, and when that was seen, twice."""
    position = await status.begin()
    key = f"program-starting/m-{machine + 1}/comfyui-gpu0"
    async with asyncio.TaskGroup() as group:
        seen = group.create_task(status.tells(key, there=True, after=position), name="status")
        told = group.create_task(api.tells(key), name="api")
        asked = await asyncio.to_thread(writer.ask, "program", machine=machine, away=True)
    if asked["key"] != key:
        raise Failed(f"the writer changed {asked['key']}, not {key}")
    position = await status.begin()
    async with asyncio.TaskGroup() as group:
        group.create_task(status.tells(key, there=False, after=position), name="status")
        await asyncio.to_thread(writer.ask, "program", machine=machine, away=False)
    return asked["began_ns"], seen.result(), told.result()
