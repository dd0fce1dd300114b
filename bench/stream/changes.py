"""A simulated fleet whose workers take and end jobs at an even pace; each report says when it was written."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any, cast

from msgspec import structs

from bench.reconcile.children import questions, reply
from bench.reconcile.writer import Fleet, published, status_event
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.store.fleet.events import MAX_EVENTS
from emp_orch.store.redis.client import client, time_ms
from emp_orch.store.redis.keys import Keys


async def change(fleet: Fleet, number: int) -> None:
    """One worker takes or ends a job: report, then event. Its package names the moment, by CLOCK_MONOTONIC in ns."""
    subject = fleet.workers[number % len(fleet.workers)]
    busy = subject.report.status is not WorkerStatus.BUSY
    subject.report = structs.replace(
        subject.report,
        status=WorkerStatus.BUSY if busy else WorkerStatus.IDLE,
        current_job_id="bench" if busy else None,
        package=f"at {time.monotonic_ns()}",
    )
    async with fleet.lock:
        await subject.write(fleet.put, fleet.pipe)
        event = cast(Any, status_event(subject.report))
        fleet.pipe.xadd(Keys().events, event, maxlen=MAX_EVENTS, approximate=True)
        await fleet.pipe.execute()


async def at_pace(fleet: Fleet, first: int, per_s: int, seconds: float) -> int:
    """How many were made; each at its own moment, whatever the one before took."""
    began = time.monotonic()
    count = int(per_s * seconds)
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / per_s - time.monotonic()))
        await change(fleet, first + number)
    return count


async def main(url: str, machines: int, gpus: int) -> None:
    r = client(url)
    fleet = Fleet(r, await published(r, url, machines, gpus), await time_ms(r))
    await fleet.fill()
    beating = asyncio.create_task(fleet.beat(), name="heartbeats")
    made = 0
    async for asked in questions():
        if beating.done():
            beating.result()
        if asked["do"] == "change":
            began = time.monotonic()
            count = await at_pace(fleet, made, asked["per_s"], asked["seconds"])
            made += count
            reply(made=count, seconds=time.monotonic() - began)
        elif asked["do"] == "drift":
            for machine in range(asked["machines"]):
                await fleet.change_program(machine, away=True)
            reply(differences=asked["machines"])
        else:
            reply(ready=True)
    beating.cancel()
    await r.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
