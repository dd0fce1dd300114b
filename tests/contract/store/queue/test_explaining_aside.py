"""Explaining jobs beside thousands of workers, while the process that explains has clients to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

import msgspec

from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.observed import WorkerReport, WorkerStatus
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.reads import LaneView
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys

KEYS = Keys()
WORKERS = 8_000


async def report_workers(r: Client) -> None:
    now = await time_ms(r)
    reports = {}
    for n in range(WORKERS):
        capabilities = {"services": ["simulation"], "models": ["flux"], "tier": n % 50}
        report = WorkerReport(
            worker_id=WorkerId(f"m{n // 8}-worker-{n % 8}"),
            machine_id=MachineId(f"m{n // 8}"),
            gpu=n % 8,
            status=WorkerStatus.IDLE,
            capabilities=capabilities,
            connector_statuses={},
            started_ms=now,
        )
        reports[report.worker_id] = msgspec.json.encode(report).decode()
    await r.hset(KEYS.workers, mapping=reports)  # type: ignore[arg-type]
    await r.zadd(KEYS.workers_seen, dict.fromkeys(reports, now))


async def standstill(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """How long `work` took, and the longest time within that the event loop served nobody."""
    longest, began = 0.0, perf_counter()
    task = asyncio.ensure_future(work())
    while not task.done():
        at = perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, perf_counter() - at)
    await task
    return perf_counter() - began, longest


async def test_others_are_served_while_lanes_are_held_against_all_workers(r: Client) -> None:
    await report_workers(r)
    explainer = Explainer(r, KEYS, "f")
    look = await explainer.look()
    lanes = [
        LaneView(
            lane=f"{n:016x}",
            requirements=Requirements(service="simulation", positive={"tier": n, "n": n}),
            depth=1,
            oldest_ms=1,
            head="j",
        )
        for n in range(1_000)
    ]
    took, longest = await standstill(lambda: explainer.serving(lanes, look))
    assert longest < took / 2, f"{longest:.3f} s of {took:.3f} s"
