"""saq with 30 jobs at once and no results kept. `python -m bench.peers.saq_peer` is its worker."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from saq import Queue
from saq.worker import start

from bench.peers.given import began, url

queue = Queue.from_url(url())


async def noop(_context: dict[str, Any], *, job: int) -> None:
    began(job)


settings = {"queue": queue, "functions": [noop], "concurrency": 30}


async def connect() -> Queue:
    await queue.connect()
    return queue


async def enqueue(connection: Queue, job: int) -> None:
    await connection.enqueue("noop", job=job, ttl=-1)


async def close(connection: Queue) -> None:
    await connection.disconnect()


if __name__ == "__main__":
    import uvloop

    logging.disable(logging.CRITICAL)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.set_event_loop(asyncio.new_event_loop())
    start("bench.peers.saq_peer.settings")
