"""A box without a login at Redis works through the API: agent and worker notice nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis import exceptions as rexc

from emp_orch.jobs.document.model import Progress, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.queue.claim import Claimed, Claims, Lease, Waiting
from emp_orch.store.redis.client import time_ms
from support.http.gate import MINE, OTHER, GateLab, gate_lab
from support.http.stack import Stack, eventually

KEY = "comfyui-2f8a11d0c4"
FLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
SECRET = {"service": "comfyui", "payload": {"prompt": FLOW, "extra_data": {"api_key_comfy_org": KEY}}}


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


async def test_a_job_is_claimed_run_and_ended_through_the_gate(lab: GateLab) -> None:
    r = await lab.box(MINE)
    assert await r.ping() and await time_ms(r)
    claims = Claims(r, lab.keys, f"{MINE}-worker-0", lease_s=30)
    able = {"services": ["simulation", "comfyui"]}
    assert isinstance(await claims.claim_or_wait(able), Waiting)
    sent = await lab.queue.submit(parse_submission(SECRET))
    assert await claims.wait(10) is not None
    claim = await claims.claim_or_wait(able)
    assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
    secrets = await claims.secrets(claim)
    assert secrets is not None and secrets.values == {"api_key_comfy_org": KEY}
    assert await claims.progress(claim, Progress(fraction=0.5)) is Lease.OK
    assert await claims.renew(claim) is Lease.OK
    assert await claims.completed(claim, Result(detail={"n": 1})) is JobStatus.COMPLETED
    job = await lab.queue.get(sent.job_id)
    assert (job.status, job.worker_id) == (JobStatus.COMPLETED, f"{MINE}-worker-0")
    await claims.leave()
    await claims.aclose()
