"""`python -m bench.queue.emp_worker --slots N --several K`: one process of emp whose jobs only leave their stamp."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from bench.peers.given import began, url
from bench.queue.emp_peer import SERVICE
from emp_orch.jobs.document.model import Job
from emp_orch.worker.noop import Noop, run_noop


def _began(job: Job) -> None:
    began(job.payload["job"])


async def work(slots: int, several: int) -> None:
    """Run jobs in `slots` slots, up to `several` a claim, until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    name = f"bench-{os.getpid()}"
    config = Noop(redis_url=url(), prefix="", worker_id=name, service=SERVICE, slots=slots, batch=several)
    await run_noop(config, _began, stopping)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--several", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(work(given.slots, given.several))


if __name__ == "__main__":
    main()
