"""A job whose worker was lost for good still ends, cancelled or for its time, while its service is at the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from msgspec import structs

from emp_orch import manifest
from emp_orch.control.jobs.lost_jobs import LostJobs
from emp_orch.fleet.model.fleet import Fleet
from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.submit import CancelOutcome, Queue
from emp_orch.store.redis.client import Client
from support.redis.server import job, until
from support.worker.processes import KEYS, Bench, at, known_by_its_service

FLEET = """
version: 1
name: lost
services: {simulation: {scale: per_machine, builtin: simulation, port: 8299}}
machines: {m: {num_gpus: 1, services: [simulation]}}
jobs: {lease: 1s}
"""
LONG_MS = 3_600_000


def leading() -> None:
    """Nobody else cares for lost jobs here."""


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    path = tmp_path / "emp.yaml"
    path.write_text(FLEET)
    return manifest.load(path, {})


async def test_it_ends_cancelled_and_its_service_is_free(stage: Bench, r: Client, fleet: Fleet) -> None:
    queue = Queue(r, KEYS)
    _, port = stage.simulation(step_ms=1000)  # a run of many minutes
    fleet = at(fleet, port)
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--lease-ttl", "1"))
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 1000}))

    await known_by_its_service(r, sent.job_id, port)
    worker.kill()
    assert await queue.cancel(sent.job_id) is CancelOutcome.REQUESTED
    async with asyncio.TaskGroup() as group:
        lost = LostJobs(r, KEYS, Artifacts((stage.folder / "kept").as_uri()), group)

        async def ended() -> Job | None:
            await lost.sweep(fleet, still=leading, connected_ms=LONG_MS)
            found = await queue.get(sent.job_id)
            return found if found.status in ENDED else None

        found = await until(ended)
    assert found.status is JobStatus.CANCELLED

    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

        async def free() -> bool:
            async with http.get("/queue") as answer:
                return not (await answer.json())["queue_running"]

        await until(free)


async def test_it_takes_no_longer_than_a_run_may(stage: Bench, r: Client, fleet: Fleet) -> None:
    queue = Queue(r, KEYS)
    _, port = stage.simulation(step_ms=1000)
    fleet = at(fleet, port)
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--lease-ttl", "1"))
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 1000}, max_retries=0))

    await known_by_its_service(r, sent.job_id, port)
    worker.kill()
    machine = structs.replace(fleet.machines[0], worker=structs.replace(fleet.machines[0].worker, job_timeout_s=1.5))
    short = structs.replace(fleet, machines=(machine,))
    async with asyncio.TaskGroup() as group:
        lost = LostJobs(r, KEYS, Artifacts((stage.folder / "kept").as_uri()), group)

        async def ended() -> Job | None:
            await lost.sweep(short, still=leading, connected_ms=LONG_MS)
            found = await queue.get(sent.job_id)
            return found if found.status in ENDED else None

        found = await until(ended)
    assert found.status is JobStatus.TIMEOUT and found.error is not None
    assert found.error.message == "it ran longer than 1.5 s, and worker m-worker-0 was lost"
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/queue") as answer:
        assert (await answer.json())["queue_running"] == [], "its service is free"
