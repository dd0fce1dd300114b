"""arq, polling every 10 ms (its default of 500 ms would be its latency), 100 jobs at once, no results kept.

`python -m bench.peers.arq_peer` is its worker.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from arq import ArqRedis, create_pool, func
from arq.connections import RedisSettings
from arq.worker import run_worker

from bench.peers.given import began, host_port

_HOST, _PORT = host_port()
_REDIS = RedisSettings(host=_HOST, port=_PORT)


async def noop(_context: dict[Any, Any], job: int) -> None:
    began(job)


class WorkerSettings:
    functions: ClassVar = [func(noop, keep_result=0)]
    redis_settings = _REDIS
    max_jobs = 100
    poll_delay = 0.01
    keep_result = 0


async def connect() -> ArqRedis:
    return await create_pool(_REDIS)


async def enqueue(pool: ArqRedis, job: int) -> None:
    await pool.enqueue_job("noop", job)


async def close(pool: ArqRedis) -> None:
    await pool.aclose()


if __name__ == "__main__":
    import uvloop

    logging.disable(logging.CRITICAL)
    asyncio.set_event_loop(uvloop.new_event_loop())
    run_worker(WorkerSettings)
