"""`python -m bench.peers.produce MODULE MODE N FIRST`: put jobs FIRST … FIRST+N-1 into a peer, print the rate.

Modes: one (each awaited), flight (100 at once), bulk (1,000 a call), paced (at random gaps of 10 to 40 ms, each
stamped just before it is enqueued).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from bench.peers.given import ENQUEUED, marks

IN_FLIGHT = 100
BULK = 1_000
GAP_S = (0.010, 0.040)
# The first paced job finds connections unmade and scripts unloaded; it is given this long, and is not judged.
FIRST_S = 1.0


class Producer(Protocol):
    """What a peer's module offers; `enqueue_many` only where the peer has a call for it."""

    async def connect(self) -> Any: ...

    async def enqueue(self, connection: Any, job: int) -> None: ...

    async def enqueue_many(self, connection: Any, jobs: Sequence[int]) -> None: ...

    async def close(self, connection: Any) -> None: ...


async def _flight(peer: Producer, connection: Any, jobs: range) -> None:
    left = iter(jobs)

    async def lane() -> None:
        for job in left:
            await peer.enqueue(connection, job)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.create_task(lane())


async def _paced(peer: Producer, connection: Any, jobs: range) -> None:
    stamps, gaps = marks(ENQUEUED), random.Random(7)
    for job in jobs:
        stamps.stamp(job)
        await peer.enqueue(connection, job)
        await asyncio.sleep(FIRST_S if job == jobs[0] else gaps.uniform(*GAP_S))


async def _put(peer: Producer, connection: Any, mode: str, jobs: range) -> None:
    match mode:
        case "one":
            for job in jobs:
                await peer.enqueue(connection, job)
        case "flight":
            await _flight(peer, connection, jobs)
        case "bulk":
            for k in range(0, len(jobs), BULK):
                await peer.enqueue_many(connection, jobs[k : k + BULK])
        case "paced":
            await _paced(peer, connection, jobs)
        case _:
            raise SystemExit(f"no mode {mode!r}")


async def produce(peer: Producer, mode: str, jobs: range) -> float:
    """Jobs a second, connecting not counted."""
    connection = await peer.connect()
    began = time.perf_counter()
    await _put(peer, connection, mode, jobs)
    took = time.perf_counter() - began
    await peer.close(connection)
    return len(jobs) / took


def _runner(peer: object) -> Callable[[Coroutine[Any, Any, float]], float]:
    """uvloop where it is installed, unless the peer's own programs run without it."""
    if not getattr(peer, "PLAIN_LOOP", False):
        with suppress(ImportError):
            import uvloop

            run: Callable[[Coroutine[Any, Any, float]], float] = uvloop.run
            return run
    return asyncio.run


def main() -> None:
    module, mode, count, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable(logging.CRITICAL)
    peer = cast(Producer, importlib.import_module(module))
    rate = _runner(peer)(produce(peer, mode, range(first, first + count)))
    print(json.dumps({"rate": rate}))


if __name__ == "__main__":
    main()
