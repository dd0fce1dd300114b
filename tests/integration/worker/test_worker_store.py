"""A worker whose store does not work says why in its report, and begins no job until it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from support.redis.server import eventually, job, until
from support.worker.processes import KEYS, Bench, known_by_its_service


async def test_it_takes_no_job_before_it_can_save(stage: Bench, r: Client, tmp_path: Path) -> None:
    _, port = stage.simulation()
    folder = tmp_path / "store"
    folder.write_text("no folder yet")
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", env={"EMP_ARTIFACTS_URL": f"file://{folder}"})
    why = eventually(lambda: (report := stage.report()) and report.store_error)
    assert why and "the artifact store does not work" in why and str(folder) in why
    stage.ready()
    queue = Queue(r, KEYS)
    sent = await queue.submit(job("simulation", payload={"prompt": "a boat", "steps": 1}))
    folder.unlink()

    async def done() -> bool:
        return (await queue.get(sent.job_id)).status is JobStatus.COMPLETED

    await until(done, within_s=40)
    # a worker's report may come a moment after a short job's end
    eventually(lambda: (report := stage.report()) is not None and report.store_error == "")
    assert (await queue.get(sent.job_id)).attempts == 1


async def test_a_store_that_breaks_during_a_job_costs_it_no_run(stage: Bench, r: Client, tmp_path: Path) -> None:
    _, port = stage.simulation()
    folder = tmp_path / "store"
    folder.mkdir()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", env={"EMP_ARTIFACTS_URL": f"file://{folder}"})
    stage.ready()
    queue = Queue(r, KEYS)
    sent = await queue.submit(job("simulation", payload={"prompt": "a boat", "steps": 20}, max_retries=0))
    await known_by_its_service(r, sent.job_id, port)
    folder.rename(tmp_path / "away")
    folder.write_text("no folder any more")

    async def back() -> bool:
        found = await queue.get(sent.job_id)
        return found.status is JobStatus.PENDING and bool(found.history[-1].reason)

    await until(back, within_s=40)
    report = eventually(lambda: (found := stage.report()) and found.store_error and found)
    assert report and "the artifact store does not work" in report.store_error
    found = await queue.get(sent.job_id)
    assert found.attempts == 0
    assert "was not saved" in found.history[-1].reason
    folder.unlink()

    async def done() -> bool:
        return (await queue.get(sent.job_id)).status is JobStatus.COMPLETED

    await until(done, within_s=60)
    assert (await queue.get(sent.job_id)).attempts == 1


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nosuch://bucket/x", "nosuch://bucket/x cannot be used as an artifact store"),
        ("api://", "api.json: it says where the API is"),
    ],
)
def test_a_store_that_cannot_be_opened_is_no_end_of_the_worker(stage: Bench, url: str, words: str) -> None:
    _, port = stage.simulation()
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", env={"EMP_ARTIFACTS_URL": url})
    found = eventually(lambda: (report := stage.report()) and report.store_error)
    assert found and words in found
    assert worker.terminate() == 0
