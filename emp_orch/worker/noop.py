"""A worker process whose jobs do nothing: what the queue itself costs. For benches; no connector, no report.

It holds `slots` workers, each with a lease of its own, that share one connection. Their ends and claims are the
scripts that every worker's are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from emp_orch.jobs.document.model import Job, Result
from emp_orch.store.queue.claim import Claimed, Claims, Waiting
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined


class Noop(Struct, frozen=True, kw_only=True):
    """`batch`: how many jobs a slot claims in one trip; 1 is what a real worker does."""

    redis_url: str
    prefix: str
    worker_id: str
    service: str
    slots: int = 1
    batch: int = 1
    lease_s: float = 30.0


async def run_noop(config: Noop, began: Callable[[Job], None], stopping: asyncio.Event) -> int:
    """Complete jobs at once until told to stop; how many. `began` is called for each."""
    r = client(config.redis_url)
    line = Pipelined(r)
    try:
        async with asyncio.TaskGroup() as tasks:
            slots = [tasks.create_task(_slot(config, n, r, line, began)) for n in range(config.slots)]
            await stopping.wait()
            for slot in slots:
                slot.cancel()
        return sum(slot.result() for slot in slots if not slot.cancelled())
    finally:
        await line.aclose()
        await r.aclose()


async def _slot(config: Noop, n: int, r: Any, line: Pipelined, began: Callable[[Job], None]) -> int:
    claims = Claims(r, Keys(config.prefix), f"{config.worker_id}-{n}", lease_s=config.lease_s, line=line)
    capabilities = {"services": [config.service]}
    done: list[tuple[Claimed, Result]] = []
    count = 0
    try:
        while True:
            _, got = await claims.complete_and_claim(capabilities, done, want=config.batch)
            done = []
            if isinstance(got, Waiting):
                await claims.wait(got.seconds)
                continue
            for claim in got:
                began(claim.job)
            done = [(claim, Result()) for claim in got]
            count += len(got)
    except asyncio.CancelledError:
        return count
    finally:
        await claims.aclose()
