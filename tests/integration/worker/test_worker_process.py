"""Real workers on a real simulation service and a real Redis: jobs end as they should, whatever dies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
from typing import Any

import aiohttp
import pytest

from emp_orch.connectors.simulation import Request, workflow_of
from emp_orch.fleet.model.observed import ConnectorStatus
from emp_orch.jobs.document.model import Job, Output
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.submit import CancelOutcome, Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, eventually, free_port, job, until
from support.worker.processes import EMP, KEYS, Bench, known_by_its_service

PNG = b"\x89PNG\r\n\x1a\n"


class SweptQueue(Queue):
    """The queue, with the reaper that the reconciler has."""

    def __init__(self, r: Client, keys: Keys) -> None:
        super().__init__(r, keys)
        self.reaper = Reaper(r, keys)


@pytest.fixture
def queue(r: Client) -> SweptQueue:
    return SweptQueue(r, KEYS)


async def reached(queue: SweptQueue, job_id: str, *statuses: JobStatus) -> Job:
    """The job once it has one of these statuses; leases are swept meanwhile, as the reconciler does."""

    async def look() -> Job | None:
        await queue.reaper.reap()
        found = await queue.get(job_id)
        return found if found.status in statuses else None

    found: Job = await until(look)
    return found


async def content(stage: Bench, job_id: str, output: Output) -> bytes:
    return b"".join([chunk async for chunk in Artifacts(stage.artifacts).read(job_id, output)])


async def ended(queue: SweptQueue, job_id: str) -> Job:
    return await reached(queue, job_id, *ENDED)


def long_job(**fields: Any) -> Any:
    return job(payload={"prompt": "long", "steps": 1000}, **fields)


async def test_a_submitted_job_ends_with_a_real_picture(stage: Bench, r: Client, queue: SweptQueue) -> None:
    _, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", f"comfyui=comfyui@http://127.0.0.1:{port}")
    report = stage.ready()
    assert report.machine_id == "m" and report.worker_id == "m-worker-0" and report.package.startswith("emp-orch ")
    assert report.redis == f"127.0.0.1:{stage.server.port}/0"
    hardware = report.capabilities.pop("hardware")
    assert hardware["cpu_cores"] >= 1 and hardware["ram_gb"] > 0
    assert report.capabilities == {"gpu": 0, "services": ["simulation", "comfyui"]}
    simple = await queue.submit(job(payload={"prompt": "a cat", "seed": 7, "steps": 5}))
    whole = await queue.submit(
        job("comfyui", payload={"workflow": workflow_of(Request(prompt="a cat", seed=7, steps=5))})
    )
    done = await ended(queue, simple.job_id)
    assert done.status is JobStatus.COMPLETED and done.worker_id == "m-worker-0" and done.result is not None
    (output,) = done.result.outputs
    assert output.content_type == "image/png"
    picture = await content(stage, done.id, output)
    assert picture.startswith(PNG) and len(picture) == output.size
    assert hashlib.sha256(picture).hexdigest() == output.sha256
    assert done.progress is not None and done.progress.fraction == 1
    assert (await ended(queue, whole.job_id)).status is JobStatus.COMPLETED
    eventually(lambda: (found := stage.report()) is not None and found.jobs_completed == 2)
    types = [e.type for e in await Events(r, KEYS).recent(100)]
    for expected in ("worker_registered", "worker_status", "connector_status", "job_progress", "job_completed"):
        assert expected in types
    assert "Worker registered" in stage.daemons[-1].log


async def test_a_large_output_arrives_whole(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    sent = await queue.submit(job(payload={"prompt": "big", "steps": 1, "width": 2048, "height": 2048}))
    done = await ended(queue, sent.job_id)
    assert done.result is not None
    (output,) = done.result.outputs
    assert output.size > 1024 * 1024, output.size
    picture = await content(stage, done.id, output)
    assert hashlib.sha256(picture).hexdigest() == output.sha256 and picture.startswith(PNG)


async def test_an_output_that_cannot_be_saved_fails_the_job_with_the_reason(stage: Bench, queue: SweptQueue) -> None:
    """Where others can be: what the whole store lacks is no job's fault (integration/test_worker_store)."""
    _, port = stage.simulation()
    taken = stage.folder / "taken"
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--artifacts", local_url(taken)))
    stage.ready()
    taken.mkdir(exist_ok=True)
    (taken / "blocked").write_text("I am a file, where the job's folder would be")
    sent = await queue.submit(job(id="blocked", payload={"prompt": "x", "steps": 1}, max_retries=0))
    failed = await ended(queue, sent.job_id)
    assert failed.status is JobStatus.FAILED and failed.error is not None
    assert "was not saved" in failed.error.message and "taken" in failed.error.message and failed.error.retryable


async def test_the_services_own_words_become_the_jobs_error(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", f"comfyui=comfyui@http://127.0.0.1:{port}")
    broken = workflow_of(Request(steps=1))
    del broken["5"]["inputs"]["model"]
    cases = {
        "missing input": (
            job("comfyui", payload={"workflow": broken}),
            "KSampler 5: Required input is missing: model",
        ),
        "node error": (job(payload={"fail": "out of paint", "steps": 1}), "SimulatedError (node 7): out of paint"),
        "unknown node": (
            job("comfyui", payload={"workflow": {"1": {"class_type": "Nope", "inputs": {}}}}),
            "Node 'Nope' not found",
        ),
        "no workflow": (job("comfyui", payload={}), "holds no workflow"),
        "unknown field": (job(payload={"colour": "red"}), "colour"),
    }
    for name, (submission, words) in cases.items():
        found = await ended(queue, (await queue.submit(submission)).job_id)
        assert found.status is JobStatus.FAILED and found.attempts == 1, name
        assert found.error is not None and words in found.error.message, name
    eventually(lambda: (report := stage.report()) is not None and report.jobs_failed == len(cases))


async def test_cancelling_a_running_job_interrupts_the_service(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=50)
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    sent = await queue.submit(long_job())
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    assert await queue.cancel(sent.job_id) is CancelOutcome.REQUESTED
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.CANCELLED
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

        async def free() -> bool:
            async with http.get("/queue") as answer:
                return (await answer.json())["queue_running"] == []

        await until(free, within_s=5)
    after = await queue.submit(job(payload={"steps": 1}))
    assert (await ended(queue, after.job_id)).status is JobStatus.COMPLETED


async def test_cancelling_interrupts_nobody_elses_run_on_a_shared_service(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=50)
    for gpu in range(2):
        stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", gpu=gpu)
    first = await queue.submit(job(payload={"prompt": "first", "steps": 60}))
    await reached(queue, first.job_id, JobStatus.IN_PROGRESS)
    second = await queue.submit(long_job())  # waits in the service behind the first
    await reached(queue, second.job_id, JobStatus.IN_PROGRESS)
    await queue.cancel(second.job_id)
    assert (await ended(queue, second.job_id)).status is JobStatus.CANCELLED
    assert (await ended(queue, first.job_id)).status is JobStatus.COMPLETED


async def test_a_killed_workers_job_is_finished_by_another(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=20)
    short = ("--lease-ttl", "1")
    killed = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=short)
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 100}))
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    killed.kill()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", gpu=1, options=short)
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.worker_id == "m-worker-1" and found.attempts == 2
    events = [h.event for h in found.history]
    assert events[:4] == ["job_submitted", "job_assigned", "job_requeued", "job_assigned"]
    assert events[-1] == "job_completed"
    # The service may still be at the killed worker's run: no job is queued behind it, and waiting costs no attempt.
    between = found.history[4:-1]
    assert [h.event for h in between] == ["job_requeued", "job_assigned"] * (len(between) // 2)
    assert all(f"of job {sent.job_id}, which another worker sent" in h.reason for h in between[::2])


async def test_a_worker_that_starts_again_takes_its_run_up_again(stage: Bench, r: Client, queue: SweptQueue) -> None:
    """Its service went on meanwhile: the run is followed to its end, and no second one begins."""
    _, port = stage.simulation(step_ms=20)
    killed = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 100}))

    await known_by_its_service(r, sent.job_id, port)
    stage.reported(sent.job_id)
    killed.kill()
    again = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.attempts == 1 and found.result is not None
    assert [h.event for h in found.history] == ["job_submitted", "job_assigned", "job_completed"]
    assert "was held by this worker's former life" in again.log
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/history") as answer:
        assert len(await answer.json()) == 1


async def test_a_job_whose_run_nobody_knows_is_given_back_at_once(stage: Bench, r: Client, queue: SweptQueue) -> None:
    """No waiting for the lease, which is long here."""
    _, port = stage.simulation(step_ms=20)
    killed = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 50}))
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    stage.reported(sent.job_id)
    killed.kill()
    await r.hdel(KEYS.job(sent.job_id), "run")
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.attempts == 2
    assert "ended in the middle of run 1 of 4" in next(h.reason for h in found.history if h.event == "job_requeued")


async def test_a_killed_service_is_a_failure_that_is_retried(stage: Bench, queue: SweptQueue) -> None:
    service, port = stage.simulation(step_ms=20)
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    stage.ready()
    sent = await queue.submit(job(payload={"prompt": "x", "steps": 100}))
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    service.kill()
    eventually(
        lambda: (
            (report := stage.report()) is not None
            and report.connector_statuses["simulation"].status is ConnectorStatus.ERROR
        )
    )
    stage.simulation(step_ms=1, port=port)
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.attempts == 2


async def test_no_job_is_taken_for_a_service_that_does_not_answer(stage: Bench, queue: SweptQueue) -> None:
    port = free_port()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    sent = await queue.submit(job(payload={"steps": 1}))
    eventually(
        lambda: (
            (report := stage.report()) is not None
            and report.status == "idle"
            and report.connector_statuses["simulation"].status is ConnectorStatus.ERROR
        )
    )
    assert (await queue.get(sent.job_id)).attempts == 0
    stage.simulation(port=port)
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.attempts == 1


async def test_a_service_that_has_just_gone_away_costs_no_job_all_its_runs(stage: Bench, queue: SweptQueue) -> None:
    service, port = stage.simulation()
    for gpu in (0, 1):
        stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", gpu=gpu, options=("--probe", "3"))
        stage.ready(gpu)
    service.kill()
    jobs = [(await queue.submit(job(payload={"steps": 1}))).job_id for _ in range(20)]
    eventually(
        lambda: all(
            (report := stage.report(gpu)) is not None
            and report.connector_statuses["simulation"].status is ConnectorStatus.ERROR
            for gpu in (0, 1)
        )
    )
    found = [await queue.get(job_id) for job_id in jobs]
    assert {f.status for f in found} == {JobStatus.PENDING}
    assert sum(f.attempts for f in found) <= 2  # each worker found it out at its first job
    stage.simulation(port=port)
    assert {(await ended(queue, job_id)).status for job_id in jobs} == {JobStatus.COMPLETED}


async def test_an_unknown_connector_is_an_error_and_its_service_not_advertised(
    stage: Bench, r: Client, queue: SweptQueue
) -> None:
    _, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", "video=nope@http://127.0.0.1:1")
    eventually(lambda: (report := stage.report()) is not None and report.status == "idle")
    report = stage.report()
    assert report is not None and report.capabilities["services"] == ["simulation"]
    assert report.connector_statuses["video"].status is ConnectorStatus.ERROR
    assert "'nope'" in report.connector_statuses["video"].detail
    sent = await queue.submit(job("video"))
    why = await Explainer(r, KEYS, "f").why(await queue.get(sent.job_id))
    assert "service 'video' is needed, the worker cannot use it: there is no connector 'nope'" in why


async def test_sigterm_finishes_the_job_and_leaves_no_report(stage: Bench, r: Client, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=10)
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    stage.ready()
    sent = await queue.submit(job(payload={"steps": 100}))
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    worker.process.send_signal(signal.SIGTERM)
    eventually(lambda: (report := stage.report()) is not None and report.status == "draining")
    later = await queue.submit(job(payload={"steps": 1}))
    assert worker.process.wait(20) == 0
    assert (await queue.get(sent.job_id)).status is JobStatus.COMPLETED
    assert (await queue.get(later.job_id)).status is JobStatus.PENDING, "it claims nothing more"
    assert await r.hlen(KEYS.workers) == 0 and await r.zcard(KEYS.workers_seen) == 0
    assert await r.hlen(KEYS.waiting) == 0 and await r.zcard(KEYS.waking) == 0


async def test_sigterm_hands_a_job_back_that_takes_too_long(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=50)
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--drain-timeout", "0.2"))
    sent = await queue.submit(long_job())
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    assert worker.terminate() == 0
    found = await queue.get(sent.job_id)
    assert found.status is JobStatus.PENDING and found.attempts == 0 and found.worker_id is None
    assert "shuts down" in found.history[-1].reason


async def test_a_job_that_runs_too_long_times_out(stage: Bench, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=50)
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--job-timeout", "0.5"))
    sent = await queue.submit(long_job(max_retries=0))
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.TIMEOUT and found.error is not None and "longer than 0.5 s" in found.error.message


async def test_a_result_is_kept_while_redis_is_away(stage: Bench, server: Server, r: Client, queue: SweptQueue) -> None:
    _, port = stage.simulation(step_ms=10)
    worker = stage.worker(f"simulation=simulation@http://127.0.0.1:{port}")
    stage.ready()
    sent = await queue.submit(job(payload={"steps": 100}))
    await reached(queue, sent.job_id, JobStatus.IN_PROGRESS)
    server.stop()
    eventually(lambda: "success" in stage.daemons[0].log)  # the service is through, and nobody can be told
    eventually(lambda: "is kept until Redis is back" in worker.log)
    server.start()
    await r.connection_pool.disconnect()  # the test's own connection went with the old server
    found = await ended(queue, sent.job_id)
    assert found.status is JobStatus.COMPLETED and found.attempts == 1
    # the report that it kept for Redis comes after the result
    eventually(lambda: stage.ready().jobs_completed == 1)


async def test_an_idle_worker_costs_redis_nothing_but_its_heartbeat(stage: Bench, r: Client) -> None:
    _, port = stage.simulation()
    stage.worker(f"simulation=simulation@http://127.0.0.1:{port}", options=("--heartbeat", "60"))
    stage.ready()

    async def commands() -> int:
        return int((await r.info("stats"))["total_commands_processed"])

    async def spent_in_two_seconds() -> int:
        """By Redis' own clock. What this look itself sends is not counted; of an INFO only the first is."""
        before, start, looks = await commands(), float((await r.time())[0]), 1
        while float((await r.time())[0]) - start < 2:
            looks += 1
            await asyncio.sleep(0.05)
        return await commands() - before - looks - 2

    # Its first report and claim may be under way at the first look; a worker that polls is never quiet.
    spent = [await spent_in_two_seconds()]
    while spent[-1] > 2 and len(spent) < 8:
        spent.append(await spent_in_two_seconds())
    assert spent[-1] <= 2, f"commands in 2 s, again and again: {spent}"


def emp(*argv: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("REDIS_URL", "HUB_REDIS_URL", "MACHINE_ID")}
    return subprocess.run([*EMP, *argv], capture_output=True, text=True, timeout=30, env={**clean, **env})


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (("worker", "--machine", "m"), {}, "HUB_REDIS_URL"),
        (("worker",), {"REDIS_URL": "redis://127.0.0.1:1"}, "--machine"),
        (("worker", "--machine", "unknown"), {"REDIS_URL": "redis://127.0.0.1:1"}, "'unknown' is not a machine's id"),
        (("worker", "--machine", "m", "--service", "x"), {"REDIS_URL": "redis://127.0.0.1:1"}, "NAME=CONNECTOR@URL"),
        (("worker", "--machine", "m", "--capabilities", "[]"), {"REDIS_URL": "redis://127.0.0.1:1"}, "--capabilities"),
    ],
)
def test_bad_usage_is_explained(argv: tuple[str, ...], env: dict[str, str], words: str) -> None:
    done = emp(*argv, env=env)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
