"""huey, threads, results off. It is synchronous: one job at a time is all it can have in flight.

The worker is `huey_consumer bench.peers.huey_peer.huey`.
"""

from __future__ import annotations

from huey import RedisHuey

from bench.peers.given import began, url

huey = RedisHuey("bench", url=url(), results=False)


@huey.task()
def noop(job: int) -> None:
    began(job)


async def connect() -> RedisHuey:
    return huey


async def enqueue(_huey: RedisHuey, job: int) -> None:
    noop(job)


async def close(connection: RedisHuey) -> None:
    connection.storage.close()
