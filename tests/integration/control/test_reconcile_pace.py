"""How often the reconciler looks while jobs come and go on a fleet that drifts: real Redis, real reports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from emp_orch.store.fleet.events import Events
from support.hostile.world import World
from support.redis.server import running_server

WORK_S = 2.0
EVERY_S = 0.02
# Of work alone two a second, and one each interval.
MOST_PER_S = 3.5


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with running_server("redis", tmp_path / "server") as server:
        made = World(server.url, tmp_path / "fleet")
        await made.build()
        async with made.running():
            yield made
        await made.raw.aclose()
        await made.r.aclose()


async def test_workers_at_work_ask_for_few_rounds_though_there_is_drift(world: World) -> None:
    events, loop = Events(world.r, world.keys), asyncio.get_running_loop()
    done = await world.reconciler.tick()
    assert done is not None and done.items, "this fleet is to drift"
    before, began_s = world.rounds, loop.time()
    while loop.time() - began_s < WORK_S:
        for previous, status in (("idle", "busy"), ("busy", "idle")):
            await events.append("worker_status", worker_id="box-1-worker-0", previous=previous, status=status)
        await asyncio.sleep(EVERY_S)
    assert world.rounds - before <= MOST_PER_S * (loop.time() - began_s) + 2
