"""A service that is gone costs the job that finds out, and no other."""

from __future__ import annotations

from emp_orch.fleet.model.observed import ConnectorStatus
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from support.redis.server import eventually, job
from support.worker.processes import KEYS, Bench

RARELY = ("--probe", "60")


async def test_after_a_run_that_found_nobody_the_service_is_asked_before_the_next(stage: Bench, r: Client) -> None:
    """Else a worker whose service just died fails one job after another, until its next probe."""
    queue = Queue(r, KEYS)
    service, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=RARELY)
    stage.ready()
    service.kill()
    await queue.submit_many(job(payload={"steps": 1}, max_retries=0) for _ in range(20))

    def in_error() -> bool:
        report = stage.report()
        return (
            report is not None
            and report.status == "idle"
            and report.connector_statuses["simulation"].status is ConnectorStatus.ERROR
        )

    eventually(in_error)
    counts = await queue.counts()
    assert counts[JobStatus.PENDING] == 20, "where nobody listens no run begins, and none is counted"
    assert {j.attempts for j in (await queue.list()).jobs} == {0}
