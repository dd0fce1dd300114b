"""The reconciler of a simulated fleet, one tick at a time, each timed; a process of its own, so that its CPU is too.

This is the one place that knows how control/ offers a tick and a first look.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from bench.reconcile.children import questions, reply
from bench.reconcile.simulated import FLEET, settings_of
from emp_orch.control.host import generation as generations
from emp_orch.control.host import identity
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.reconciler.daemon import built
from emp_orch.control.reconciler.observe import Observer
from emp_orch.control.reconciler.rounds import Reconciler
from emp_orch.fleet.drift.table import diff
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys

# Between two ticks: what else the process does is not the tick's.
PAUSE_S = 0.1


class Took(Struct, frozen=True, kw_only=True):
    """`cpu_ms`: of the whole process, its threads included."""

    cpu_ms: float
    wall_ms: float


class Clock:
    """`with Clock() as clock: …`, then `clock.took`."""

    took: Took

    def __enter__(self) -> Clock:
        self._cpu, self._wall = time.process_time_ns(), time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall = time.process_time_ns() - self._cpu, time.perf_counter_ns() - self._wall
        self.took = Took(cpu_ms=cpu / 1e6, wall_ms=wall / 1e6)


@asynccontextmanager
async def leading(url: str, layout: Layout) -> AsyncIterator[Reconciler]:
    """The reconciler as its daemon builds it, without the loop: it ticks when it is told."""
    r, keys = client(url), Keys()
    election = LeaderElection(r, keys, FLEET, identity.own())
    async with asyncio.TaskGroup() as group:
        yield built(r, keys, layout, settings_of(url, layout), election, group, wake=lambda: None)[0]
    await election.resign()
    await r.aclose()


async def first_look(url: str, layout: Layout) -> dict[str, Any]:
    """What a reconciler that has just come up must do before it knows anything."""
    r, keys = client(url), Keys()
    try:
        with Clock() as generation:
            current = await generations.current(r, keys, layout, FLEET)
            assert current is not None
            desired = generations.as_desired(current)
        observer = Observer(r, keys, runtimes_of(layout, None), fresh=True)
        with Clock() as read:
            observed = await observer.look()
        with Clock() as compare:
            found = diff(desired, observed)
    finally:
        await r.aclose()
    return {
        "drift": len(found),
        "generation_ms": generation.took.wall_ms,
        "read_ms": read.took.wall_ms,
        "diff_ms": compare.took.wall_ms,
        "first_ms": read.took.wall_ms + compare.took.wall_ms,
        "first_cpu_ms": read.took.cpu_ms + compare.took.cpu_ms,
    }


async def _tick(reconciler: Reconciler) -> Took:
    with Clock() as clock:
        await reconciler.tick()
    return clock.took


async def _ticks(reconciler: Reconciler, seconds: float, least: int) -> list[Took]:
    deadline = time.monotonic() + seconds
    found: list[Took] = []
    while len(found) < least or time.monotonic() < deadline:
        found.append(await _tick(reconciler))
        await asyncio.sleep(PAUSE_S)
    return found


def rss_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


async def main(url: str, folder: Path) -> None:
    layout = Layout(folder)
    looked = await first_look(url, layout)
    async with leading(url, layout) as reconciler:
        async for asked in questions():
            match asked["do"]:
                case "first":
                    reply(**looked)
                case "ticks":
                    found = await _ticks(reconciler, asked["seconds"], asked["least"])
                    reply(cpu_ms=[t.cpu_ms for t in found], wall_ms=[t.wall_ms for t in found], rss_mib=rss_mib())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
