"""A whole fleet as `emp apply` brings it up, with work to do, while every kind of process of it is killed.

Here nothing but emp itself starts anything again: supervisord, the agent, the reconciler.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.redis.client import client, drop_idle
from support.load.jobs import ASKED, BATCH, Kind, Load, allowed, beside, misplaced, planned
from support.stack.stack import MACHINE, Stack, until
from support.worker.processes import KEYS

JOBS = 300
GPUS = 3
DEADLINE_S = 180.0
KINDS = frozenset({Kind.DRAWN, Kind.WORKFLOW, Kind.BROKEN, Kind.MALFORMED, Kind.WITHDRAWN})
WORKERS = [f"redis-worker-gpu{n}" for n in range(GPUS)]
SERVICES = ["simulation", *(f"comfyui-gpu{n}" for n in range(GPUS))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    after: int
    what: str


def kills_of(rng: random.Random) -> list[Kill]:
    """Each once at least; workers and services more often. The machine's supervisord goes with all it started."""
    what = [
        *WORKERS,
        *WORKERS[:2],
        *SERVICES,
        "agent",
        "control/reconcile",
        "control/redis",
        "control/api",
        "supervisord",
    ]
    rng.shuffle(what)
    times = sorted(rng.sample(range(10, JOBS * 9 // 10), len(what)))
    return [Kill(after=t, what=w) for t, w in zip(times, what, strict=True)]


def declared(stack: Stack) -> None:
    """The default fleet with three GPUs, a short lease, what jobs may ask for, and a prefix."""
    text = stack.file.read_text()
    for old, new in (
        ("redis:\n", f"redis:\n  prefix: '{KEYS.prefix}'\n"),
        (
            "    runtime: process",
            "    worker: {capabilities: {zone: a, level: 5, models: [large]}}\n    runtime: process",
        ),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    stack.file.write_text(f"{text}\njobs: {{lease: 3s}}\n")


async def kill_all(stack: Stack, load: Load, kills: list[Kill]) -> None:
    begun = time.monotonic()
    for one in kills:
        await load.watch.until_ended(one.after, within_s=DEADLINE_S)
        kind, _, name = one.what.rpartition("/")
        who = await asyncio.to_thread(stack.control if kind else stack.program, name)
        print(f"{time.monotonic() - begun:5.1f} s, {len(load.watch.ended):4} ends: kill -9 of {one.what}", flush=True)
        os.kill(who.pid, signal.SIGKILL)


@pytest.mark.timeout(400)
async def test_a_fleet_loses_no_job_while_it_heals(folder_stack: Stack) -> None:
    seed = int(os.environ.get("EMP_FAULT_SEED") or random.randrange(10**6))
    print(f"EMP_FAULT_SEED={seed}")
    rng, stack = random.Random(seed), folder_stack
    declared(stack)
    await asyncio.to_thread(stack.up, NUM_GPUS=str(GPUS))
    r = client(stack.redis_url)
    asked = [a for a in ASKED if "zone" not in str(a) or a == {"positive": {"zone": "a"}}]
    load = Load(r, rng, planned(rng, JOBS, unnamed=BATCH, kinds=KINDS, asked=asked))
    async with beside(load.watch.follow(), load.look()):
        begun = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(load.submit(), name="submit")
                tasks.create_task(kill_all(stack, load, kills_of(rng)), name="kill")
                await load.watch.until_ended(JOBS, within_s=DEADLINE_S)
        finally:
            ended = load.watch.ended
            print(f"{len(ended)} jobs in {time.monotonic() - begun:.1f} s: {Counter(ended.values())}")
            print(*(f"{n:4} × {reason}" for reason, n in load.watch.reasons.most_common()), sep="\n")
        await drop_idle(r)  # those that were idle when Redis was killed would fail once more each
        await _check_ends(load, Artifacts(stack.layout.artifacts_url))
        assert await misplaced(r) == []
    await r.aclose()
    await asyncio.to_thread(stack.until_in_sync)
    until("status is whole", lambda: stack.run("status").returncode == 0)
    state = await stack.state()
    assert sorted(w["worker_id"] for w in state["workers"]) == [f"{MACHINE}-worker-{n}" for n in range(GPUS)]
    for log in sorted(Path(stack.layout.logs).rglob("*.log")):
        text = log.read_text(errors="replace")
        assert "Traceback" not in text, f"{log.name}: {text.split('Traceback', 1)[1][:3000]}"


async def _check_ends(load: Load, store: Artifacts) -> None:
    assert load.watch.wrong == []
    assert len(load.jobs) == load.watch.submitted == JOBS and load.watch.ended.keys() == load.jobs.keys()
    for job_id, plan in load.jobs.items():
        found = await load.queue.get(job_id)
        assert found.status is load.watch.ended[job_id]
        assert found.status in allowed(plan.kind, load.cancelled.get(job_id)), (plan.kind, found.history)
        if found.status is JobStatus.COMPLETED:
            assert found.result is not None
            (output,) = found.result.outputs
            assert await store.find(job_id, output)
    counted = Counter(load.watch.ended.values())
    assert await load.queue.counts() == {s: counted[s] for s in JobStatus}
