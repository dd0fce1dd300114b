"""A job that met a full disk goes to another slot, and says which folder of which machine has no room."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from emp_orch.jobs.document.model import Job, JobError
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.services.simulation import png
from emp_orch.store.queue.claim import Claimed, Claims, Waiting
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from support.comfyui.workflows import a_color, saved
from support.host.small_disk import SmallDisk, small_disk
from support.redis.server import job, until
from support.worker.connector import serving
from support.worker.processes import KEYS, Bench

LOAD = {"class_type": "LoadImage", "inputs": {"image": "x.png"}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", 20) as disk:
        yield disk


async def test_a_job_that_met_a_full_disk_is_run_elsewhere(stage: Bench, disk: SmallDisk, r: Client) -> None:
    queue = Queue(r, KEYS)
    small = {name: disk.folder / name for name in ("data", "artifacts", "tmp")}
    for folder in small.values():
        folder.mkdir()
    _, full = stage.simulation(options=("--dir", str(small["data"])))
    _, port = stage.simulation()
    urls = ("--input-host", "127.0.0.1", "--input-max-bytes", "1000000")

    async def picture(_: web.Request) -> web.Response:
        return web.Response(body=png.encode(png.Picture(width=8, height=8, rgb=bytes(192))))

    app = web.Application()
    app.router.add_get("/x.png", picture)
    async with serving(app) as url:
        # Each has its own thing on the small disk: what the service saves, what the worker stores, what it fetches.
        stage.worker(f"saves=comfyui@http://127.0.0.1:{full}", gpu=0)
        stage.worker(
            f"stores=comfyui@http://127.0.0.1:{port}", gpu=1, env={"EMP_ARTIFACTS_URL": f"file://{small['artifacts']}"}
        )
        stage.worker(f"fetches=comfyui@http://127.0.0.1:{port}", gpu=2, env={"TMPDIR": str(small["tmp"])}, options=urls)
        for gpu in range(3):
            stage.ready(gpu)

        async def submit(name: str) -> str:
            inputs = {"x.png": {"url": f"{url}/x.png"}} if name == "fetches" else {}
            # More than what somebody frees meanwhile by removing a file of his.
            workflow = saved(a_color(), batch=16, side=128) | ({"1": LOAD} if inputs else {})
            return (await queue.submit(job(name, payload={"workflow": workflow}, inputs=inputs))).job_id

        async def ended(job_id: str) -> Job | None:
            found = await queue.get(job_id)
            return found if found.status in ENDED else None

        first = await submit("fetches")  # Python passes a full folder over when it chooses its own
        assert (await until(partial(ended, first))).status is JobStatus.COMPLETED
        disk.fill()
        sent = {name: await submit(name) for name in ("saves", "stores", "fetches")}

        async def said(name: str) -> str:
            """Why its first run came to nothing; it waits again."""
            found: Job = await until(partial(again, name))
            (reason,) = [h.reason for h in found.history if h.event == "job_requeued"]
            assert found.error is not None and found.error.retryable
            return reason

        async def again(name: str) -> Job | None:
            found = await queue.get(sent[name])
            assert found.status not in ENDED, found.error
            return found if found.status is JobStatus.PENDING and found.attempts == 1 else None

        service = await said("saves")
        assert service.startswith(f"m has no space left in {small['data']}") and "No space left on device" in service
        assert (await said("stores")).startswith(f"m has no space left in {small['artifacts']}: ")
        assert (await said("fetches")).startswith(f"m has no space left in {small['tmp']}: input x.png: ")
        stage.worker(*(f"{name}=comfyui@http://127.0.0.1:{port}" for name in sent), gpu=3, options=urls)
        for job_id in sent.values():
            found = await until(partial(ended, job_id))
            assert (found.status, found.worker_id, found.attempts) == (JobStatus.COMPLETED, "m-worker-3", 2)


async def test_its_worker_is_passed_over_for_a_minute_whatever_else_fails_meanwhile(r: Client) -> None:
    queue, claims = Queue(r, KEYS), Claims(r, KEYS, "m-worker-0", lease_s=30)
    full = JobError(message="m has no space left in /out: [Errno 28] No space left on device", retryable=True)
    for error in (full, JobError(message="its service is away", retryable=True)):
        await queue.submit(job())
        claim = await claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed)
        assert await claims.not_completed(claim, Cause.FAILED, error) is JobStatus.PENDING
    assert await r.pttl(KEYS.jobs_avoiding) > 50_000
    waiting = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(waiting, Waiting) and waiting.seconds < 6, "the other is given to it before"
    await claims.aclose()
