"""taskiq on a Redis stream: its broker that acknowledges.

The worker is `taskiq worker bench.peers.taskiq_peer:broker`.
"""

from __future__ import annotations

from taskiq_redis import RedisStreamBroker

from bench.peers.given import began, url

broker = RedisStreamBroker(url(), queue_name="bench")


@broker.task(task_name="noop")
async def noop(job: int) -> None:
    began(job)


async def connect() -> RedisStreamBroker:
    await broker.startup()
    return broker


async def enqueue(_broker: RedisStreamBroker, job: int) -> None:
    await noop.kiq(job)


async def close(connection: RedisStreamBroker) -> None:
    await connection.shutdown()
