"""emp as a peer: its queue used as a user of it would, through the public calls of emp_orch.store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.given import url
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined

# emp's programs run on asyncio's own loop.
PLAIN_LOOP = True
LEASE_S = 30.0
SERVICE = "bench"
CAPABILITIES: Mapping[str, Any] = {"services": [SERVICE], "hardware": {"gpu_memory_gb": 24}}
# A worker's heartbeats name this key: by it they are told from its claims.
HEARTBEAT_KEY = "workers:seen"

_ASKS = Requirements(service=SERVICE)


class Connection:
    """A queue as a process has it that submits much: one connection, shared by whatever is on the way at once."""

    def __init__(self, redis_url: str) -> None:
        self.r = client(redis_url)
        self.line = Pipelined(self.r)
        self.queue = Queue(self.r, Keys(), self.line.call)

    async def aclose(self) -> None:
        await self.line.aclose()
        await self.r.aclose()


def submission(job: int, requirements: Requirements = _ASKS) -> Submission:
    return Submission(service=requirements.service, payload={"job": job}, requirements=requirements)


async def connect() -> Connection:
    return Connection(url())


async def enqueue(connection: Connection, job: int) -> None:
    await connection.queue.submit(submission(job))


async def enqueue_many(connection: Connection, jobs: Sequence[int]) -> None:
    await connection.queue.submit_many([submission(job) for job in jobs])


async def close(connection: Connection) -> None:
    await connection.aclose()


async def unfinished(redis_url: str) -> int:
    """How many jobs have not ended."""
    r = client(redis_url)
    try:
        counts = await Queue(r, Keys()).counts()
    finally:
        await r.aclose()
    return sum(number for status, number in counts.items() if JobStatus(status) not in ENDED)
