"""The queue's promises, on Redis and on Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from emp_orch.jobs.document.model import Crash, JobError, Output, Progress, Result
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue import limits, trim
from emp_orch.store.queue.claim import Claimed, Claims, Lease, Waiting
from emp_orch.store.queue.submit import CancelOutcome, NoSuchJob, NotNow, Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import job, until

ABLE = {"services": ["simulation"], "gpu": 0}
KEYS = Keys("t:")


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


OPEN: list[Claims] = []


@pytest.fixture(autouse=True)
async def _all_closed(r: Client) -> AsyncIterator[None]:
    yield
    while OPEN:
        await OPEN.pop().aclose()


def worker(r: Client, name: str = "m-worker-0", lease_s: float = 30) -> Claims:
    made = Claims(r, KEYS, name, lease_s=lease_s)
    OPEN.append(made)
    return made


async def claim(claims: Claims, capabilities: dict[str, Any] = ABLE) -> Claimed:
    answer = await claims.claim_or_wait(capabilities)
    assert isinstance(answer, Claimed), answer
    return answer


async def event_types(r: Client) -> list[str]:
    return [e.type for e in await Events(r, KEYS).recent(1000)]


async def test_a_job_runs_to_its_end(r: Client, queue: Queue) -> None:
    sent = await queue.submit(job(payload={"prompt": 'a "cat" \\ é', "seed": 2**60}, priority=3))
    assert sent.created and sent.status is JobStatus.PENDING
    held = await claim(worker(r))
    assert held.job.id == sent.job_id and held.job.payload == {"prompt": 'a "cat" \\ é', "seed": 2**60}
    assert held.job.attempts == 1
    mine = worker(r)
    assert await mine.renew(held) is Lease.OK
    assert await mine.progress(held, Progress(fraction=0.5, message="half")) is Lease.OK
    now = await queue.get(sent.job_id)
    assert (now.status, now.progress, now.worker_id) == (
        JobStatus.IN_PROGRESS,
        Progress(fraction=0.5, message="half"),
        "m-worker-0",
    )
    result = Result(outputs=(Output(name="a.png", content_type="image/png", size=3, sha256="00", path="1-0/a.png"),))
    assert await mine.completed(held, result) is JobStatus.COMPLETED
    done = await queue.get(sent.job_id)
    assert done.status is JobStatus.COMPLETED and done.result == result and done.finished_ms is not None
    assert [h.event for h in done.history] == ["job_submitted", "job_assigned", "job_completed"]
    assert await event_types(r) == ["job_submitted", "job_assigned", "job_progress", "job_completed"]
    recent = await Events(r, KEYS).recent(10)
    assert recent[-1].data == {
        "type": "job_completed",
        "job_id": sent.job_id,
        "worker_id": "m-worker-0",
        "status": "completed",
    }
    assert await r.zcard(KEYS.leases) == 0


async def test_submitting_again_changes_nothing(queue: Queue) -> None:
    first = await queue.submit(job(id="once", payload={"n": 1}))
    second = await queue.submit(job(id="once", payload={"n": 2}))
    assert first.created and not second.created
    assert (await queue.get("once")).payload == {"n": 1}
    assert (await queue.counts())[JobStatus.PENDING] == 1


async def test_priority_first_then_exactly_first_in_first_out(r: Client, queue: Queue) -> None:
    for n in range(20):
        await queue.submit(job(id=f"low{n}", priority=0))
    for n in range(3):
        await queue.submit(job(id=f"high{n}", priority=1_000_000, requirements={"negative": {"gpu": 99}}))
    mine = worker(r)
    order = [(await claim(mine)).job.id for _ in range(23)]
    assert order == [f"high{n}" for n in range(3)] + [f"low{n}" for n in range(20)]


async def test_many_jobs_nobody_can_run_do_not_hide_one(r: Client, queue: Queue) -> None:
    for n in range(150):
        await queue.submit(job("video", id=f"v{n}", priority=9))
    await queue.submit(job(id="mine"))
    mine = worker(r)
    assert (await claim(mine)).job.id == "mine"
    assert isinstance(await mine.claim_or_wait(ABLE), Waiting)
    assert (await queue.counts())[JobStatus.PENDING] == 150


@pytest.mark.parametrize(
    ("requirements", "fits", "does_not"),
    [
        ({"positive": {"models": ["a"]}}, {"models": ["a", "b"]}, {"models": ["b"]}),
        ({"negative": {"region": "eu"}}, {"region": "us"}, {"region": "eu"}),
        ({"hardware": {"gpu_memory_gb": 16}}, {"hardware": {"gpu_memory_gb": 24}}, {"hardware": {"gpu_memory_gb": 8}}),
    ],
)
async def test_positive_negative_and_hardware_each_alone(
    r: Client, queue: Queue, requirements: dict[str, Any], fits: dict[str, Any], does_not: dict[str, Any]
) -> None:
    await queue.submit(job(id="picky", requirements=requirements))
    assert isinstance(await worker(r, "wrong").claim_or_wait(ABLE | does_not), Waiting)
    assert (await claim(worker(r, "right"), ABLE | fits)).job.id == "picky"


async def test_one_submission_wakes_one_waiting_worker(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="first"))
    everyone = [worker(r, f"w{n}") for n in range(5)]
    await claim(everyone[0])
    for claims in everyone:
        assert isinstance(await claims.claim_or_wait(ABLE), Waiting)
    await queue.submit(job(id="second"))
    woken = [claims for claims in everyone if await claims.wait(0.05) is not None]
    assert len(woken) == 1
    assert (await claim(woken[0])).job.id == "second"


async def test_a_new_lane_reaches_those_who_wait(r: Client, queue: Queue) -> None:
    mine = worker(r)
    assert isinstance(await mine.claim_or_wait(ABLE), Waiting)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(mine.wait(10))
        await queue.submit(job(id="new", requirements={"positive": {"gpu": 0}}))
    assert waiting.result() is not None
    assert (await claim(mine)).job.id == "new"


async def test_a_wake_is_passed_on_when_its_worker_takes_something_better(r: Client, queue: Queue) -> None:
    """w1 serves both lanes, w2 only one; the job that is left over must not wait for w2's timeout."""
    both = {"services": ["simulation", "video"]}
    for service in ("simulation", "video"):
        await queue.submit(job(service, id=f"prepare-{service}"))
    w1, w2 = worker(r, "w1"), worker(r, "w2")
    await claim(w1, both)
    await claim(w1, both)
    assert isinstance(await w1.claim_or_wait(both), Waiting)
    await queue.submit(job("simulation", id="left-over"))  # wakes w1, the only one that waits
    assert isinstance(await w2.claim_or_wait({"services": ["audio"]}), Waiting)
    await queue.submit(job("video", id="better", priority=5))
    assert (await claim(w1, both)).job.id == "better"
    w3 = worker(r, "w3")
    assert (await claim(w3)).job.id == "left-over"


async def test_the_baton_reaches_a_waiting_worker(r: Client, queue: Queue) -> None:
    """Woken for one lane, it takes a better job of another: the job it leaves goes to the next who waits."""
    w1, w2 = worker(r, "w1"), worker(r, "w2")
    for n in range(64):  # which of the two groups is asked first is Redis' choice: go on until it is w1's
        left, better = f"left{n}", f"better{n}"
        both, one = {"services": [left, better]}, {"services": [left]}
        for service in (left, better):
            await queue.submit(job(service))
            await claim(w1, both)
        assert isinstance(await w1.claim_or_wait(both), Waiting)
        assert isinstance(await w2.claim_or_wait(one), Waiting)
        await queue.submit(job(left, id=f"left-over-{n}"))
        if await w1.wait(0.05) is not None:
            break
        assert (await claim(w2, one)).job.id == f"left-over-{n}"
    else:
        pytest.fail("w1 was never woken first")
    await queue.submit(job(better, id="better", priority=5))  # nobody who serves it waits
    assert (await claim(w1, both)).job.id == "better"
    assert await w2.wait(0.05) is not None
    assert (await claim(w2, one)).job.id == f"left-over-{n}"


async def test_a_dead_workers_wake_goes_to_another(r: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAKE_ANSWER_MS", 1)
    quick = Queue(r, KEYS)
    await quick.submit(job(id="first"))
    dead, alive = worker(r, "1-dead"), worker(r, "2-alive")
    await claim(dead)
    assert isinstance(await dead.claim_or_wait(ABLE), Waiting)
    assert isinstance(await alive.claim_or_wait(ABLE), Waiting)
    await quick.submit(job(id="second"))
    assert await alive.wait(0.05) is None

    async def woken() -> bool:
        await Reaper(r, KEYS).reap()
        return await alive.wait(0.05) is not None

    await until(woken)
    assert (await claim(alive)).job.id == "second"


async def test_leaving_passes_the_wake_on(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="first"))
    leaver, stayer = worker(r, "1-leaver"), worker(r, "2-stayer")
    await claim(leaver)
    assert isinstance(await leaver.claim_or_wait(ABLE), Waiting)
    assert isinstance(await stayer.claim_or_wait(ABLE), Waiting)
    await queue.submit(job(id="second"))
    await leaver.leave()
    assert await stayer.wait(0.05) is not None
    assert await r.exists(KEYS.wake("1-leaver")) == 0


async def test_an_expired_lease_goes_to_another_worker_at_its_old_place(r: Client, queue: Queue) -> None:
    for name in ("a", "b"):
        await queue.submit(job(id=name, max_retries=1))
    crashed = worker(r, "crashed", lease_s=0.01)
    held = await claim(crashed)
    assert held.job.id == "a"

    async def swept() -> Any:
        return await Reaper(r, KEYS).reap()

    (gone,) = await until(swept)
    assert (gone.job_id, gone.worker_id, gone.status) == ("a", "crashed", JobStatus.PENDING)
    assert (await claim(crashed)).job.id == "b", "the worker that lost it is passed over"
    other = worker(r, "other", lease_s=0.01)
    again = await claim(other)
    assert (again.job.id, again.job.attempts) == ("a", 2)
    # everything the first holder says is refused
    assert await crashed.renew(held) is Lease.LOST
    assert await crashed.progress(held, Progress(fraction=1)) is Lease.LOST
    assert await crashed.completed(held, Result()) is None
    # the retries are used up
    rows: list[Any] = []

    async def all_swept() -> bool:
        rows.extend(await Reaper(r, KEYS).reap())
        return len(rows) == 2

    await until(all_swept)
    end = await queue.get("a")
    assert end.status is JobStatus.FAILED and end.error is not None
    assert "other stopped renewing" in end.error.message and "run 2 of 2" in end.error.message
    assert [h.event for h in end.history] == [
        *("job_submitted", "job_assigned", "job_requeued", "job_assigned", "job_failed")
    ]


async def test_renewing_keeps_a_lease(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="long"))
    mine = worker(r, lease_s=0.05)
    held = await claim(mine)
    patient = worker(r, lease_s=60)
    assert await patient.renew(held) is Lease.OK
    assert await Reaper(r, KEYS).reap() == ()


async def test_a_retryable_failure_runs_again_elsewhere_and_another_ends(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="flaky", max_retries=1))
    w1, w2 = worker(r, "w1"), worker(r, "w2")
    held = await claim(w1)
    error = JobError(message="connection reset", retryable=True)
    assert await w1.not_completed(held, Cause.FAILED, error) is JobStatus.PENDING
    waiting = await w1.claim_or_wait(ABLE)
    assert isinstance(waiting, Waiting) and 0 < waiting.seconds <= 5, "it comes back when it may have the job"
    assert (await queue.get("flaky")).error == error
    held = await claim(w2)
    assert await w2.not_completed(held, Cause.FAILED, error) is JobStatus.FAILED
    assert (await queue.get("flaky")).status is JobStatus.FAILED


async def test_an_error_for_good_is_not_retried_and_a_timeout_is_one(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="bad"))
    await queue.submit(job(id="slow", max_retries=0))
    mine = worker(r)
    assert (
        await mine.not_completed(await claim(mine), Cause.FAILED, JobError(message="no such node")) is JobStatus.FAILED
    )
    late = JobError(message="ran longer than 5 s", retryable=True)
    assert await mine.not_completed(await claim(mine), Cause.TIMEOUT, late) is JobStatus.TIMEOUT
    assert (await event_types(r))[-1] == "job_timeout"


CRASH = "comfyui exited with status 3 during this job"


def crash_on(worker_id: str, how: str = "status 3") -> Crash:
    return Crash(worker_id=worker_id, service="comfyui", how=how)


async def test_a_job_that_ended_the_service_of_two_workers_is_given_to_no_third(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="bad", max_retries=5))
    error = JobError(message=CRASH, retryable=True)
    w = {name: worker(r, name) for name in ("w1", "w2", "w3")}
    held = await claim(w["w1"])
    assert await w["w1"].not_completed(held, Cause.CRASHED, error, crash=crash_on("w1")) is JobStatus.PENDING
    assert (await queue.get("bad")).crashes == (crash_on("w1"),)

    # Another's failure in between does not make that forgotten, nor does the same worker count twice.
    held = await claim(w["w2"])
    assert held.job.crashes == (crash_on("w1"),)
    late = JobError(message="it took too long", retryable=True)
    assert await w["w2"].not_completed(held, Cause.TIMEOUT, late) is JobStatus.PENDING
    held = await claim(w["w1"])
    assert await w["w1"].not_completed(held, Cause.CRASHED, error, crash=crash_on("w1")) is JobStatus.PENDING

    held = await claim(w["w2"])
    crash = crash_on("w2", "SIGSEGV")
    assert await w["w2"].not_completed(held, Cause.CRASHED, error, crash=crash) is JobStatus.FAILED
    ended = await queue.get("bad")
    poison = f"poison: it ended comfyui on w1 (status 3) and on w2 (SIGSEGV); the last: {CRASH}"
    assert ended.error is not None and (ended.error.message, ended.error.retryable) == (poison, False)
    assert ended.history[-1].reason == poison
    assert isinstance(await w["w3"].claim_or_wait(ABLE), Waiting)

    # A person may know better: counted anew.
    await queue.retry("bad")
    assert (await queue.get("bad")).crashes == ()
    held = await claim(w["w3"])
    assert await w["w3"].not_completed(held, Cause.CRASHED, error, crash=crash_on("w3")) is JobStatus.PENDING


async def test_handing_back_counts_no_attempt(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j", max_retries=0))
    w1, w2 = worker(r, "w1"), worker(r, "w2")
    back = JobError(message="the worker shuts down", retryable=True)
    assert await w1.not_completed(await claim(w1), Cause.HANDED_BACK, back) is JobStatus.PENDING
    held = await claim(w2)
    assert held.job.attempts == 1 and held.job.error is None


async def test_cancelling_a_waiting_job_is_at_once(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    assert await queue.cancel("j", reason="asked by a person") is CancelOutcome.CANCELLED
    assert isinstance(await worker(r).claim_or_wait(ABLE), Waiting)
    assert (await queue.get("j")).status is JobStatus.CANCELLED
    assert await queue.cancel("j") is CancelOutcome.ENDED
    with pytest.raises(NoSuchJob):
        await queue.cancel("nothing")


async def test_cancelling_a_running_job_tells_its_worker_and_ends_cancelled(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    mine = worker(r)
    held = await claim(mine)
    await mine.progress(held, Progress(fraction=0.1))
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        tasks.create_task(mine.cancel_notice("j"))
        assert await queue.cancel("j") is CancelOutcome.REQUESTED
    assert await mine.renew(held) is Lease.CANCEL
    assert (await queue.get("j")).cancel_requested
    # also when the worker sees only that the service failed
    error = JobError(message="interrupted", retryable=True)
    assert await mine.not_completed(held, Cause.FAILED, error) is JobStatus.CANCELLED
    assert not (await queue.get("j")).cancel_requested


async def test_a_cancelled_job_whose_worker_died_is_not_run_again(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    await claim(worker(r, lease_s=0.01))
    await queue.cancel("j")

    async def swept() -> Any:
        return await Reaper(r, KEYS).reap()

    (row,) = await until(swept)
    assert row.status is JobStatus.CANCELLED


async def test_retry_by_a_person(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    with pytest.raises(NotNow):
        await queue.retry("j")
    await queue.cancel("j")
    await queue.retry("j")
    assert (await claim(worker(r))).job.id == "j"
    with pytest.raises(NoSuchJob):
        await queue.retry("nothing")


async def test_lists_pages_and_counts(r: Client, queue: Queue) -> None:
    for n in range(7):
        await queue.submit(job(id=f"j{n}"))
    mine = worker(r)
    await mine.completed(await claim(mine), Result())
    page = await queue.list(limit=3)
    assert [j.id for j in page.jobs] == ["j6", "j5", "j4"] and page.total == 7
    assert [j.id for j in (await queue.list(limit=3, offset=6)).jobs] == ["j0"]
    done = await queue.list(status=JobStatus.COMPLETED)
    assert [j.id for j in done.jobs] == ["j0"] and done.total == 1
    counts = await queue.counts()
    assert counts[JobStatus.PENDING] == 6 and counts[JobStatus.COMPLETED] == 1 and set(counts) == set(JobStatus)


async def test_ended_jobs_are_forgotten_past_the_limit(r: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim, "MAX_ENDED", 3)
    monkeypatch.setattr(trim, "EVERY", 1)
    queue, mine = Queue(r, KEYS), worker(r)
    for n in range(6):
        await queue.submit(job(id=f"j{n}"))
        await mine.completed(await claim(mine), Result())
    assert [j.id for j in (await queue.list()).jobs] == ["j5", "j4", "j3"]
    assert (await queue.counts())[JobStatus.COMPLETED] == 3
    assert len(await r.keys(KEYS.job("*"))) == 3
    with pytest.raises(NoSuchJob):
        await queue.get("j0")


async def test_no_worker_forgets_what_the_fleet_keeps(r: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """jobs.keep.count may be more than what a worker bounds by itself."""
    monkeypatch.setattr(trim, "MAX_ENDED", 3)
    monkeypatch.setattr(trim, "EVERY", 1)
    queue, mine = Queue(r, KEYS), worker(r)

    async def run(names: str) -> None:
        for name in names:
            await queue.submit(job(id=name))
            await mine.completed(await claim(mine), Result())

    await queue.keep_ended(5)
    await run("abcdef")
    assert [j.id for j in (await queue.list()).jobs] == ["f", "e", "d", "c", "b"]
    await queue.keep_ended(2)
    await run("g")
    assert [j.id for j in (await queue.list()).jobs] == ["g", "f", "e"], "the rest is the reconciler's"
    await r.set(KEYS.jobs_keep, "many")
    await run("h")
    assert [j.id for j in (await queue.list()).jobs] == ["h", "g", "f"]


async def test_unused_lanes_are_forgotten_and_come_back(r: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LANE_KEPT_MS", -1)
    queue, mine = Queue(r, KEYS), worker(r)
    await queue.submit(job(id="a"))
    await Reaper(r, KEYS).reap()
    assert await r.hlen(KEYS.lanes) == 1, "a lane with a job stays"
    await claim(mine)
    assert isinstance(await mine.claim_or_wait(ABLE), Waiting)
    await Reaper(r, KEYS).reap()
    assert await r.hlen(KEYS.lanes) == 0
    await queue.submit(job(id="b"))
    assert await mine.wait(0.05) is not None
    assert (await claim(mine)).job.id == "b"


async def test_a_damaged_job_fails_with_a_word_and_blocks_nobody(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="broken"))
    await queue.submit(job(id="fine"))
    text = await r.hget(KEYS.jobs, "broken")
    assert isinstance(text, str)
    await r.hset(KEYS.jobs, "broken", text.replace('"max_retries":3', '"max_retries":"many"'))
    assert (await claim(worker(r))).job.id == "fine"
    assert await r.hget(KEYS.job("broken"), "status") == "failed"
    assert [j.id for j in (await queue.list()).jobs] == ["fine"], "what cannot be read is not listed"
    assert (await queue.counts())[JobStatus.FAILED] == 1


async def test_a_worker_learns_lanes_again_after_redis_lost_everything(r: Client, queue: Queue) -> None:
    mine = worker(r)
    await queue.submit(job(id="a"))
    await claim(mine)
    await r.flushall()
    await queue.submit(job(id="b", requirements={"negative": {"gpu": 9}}))
    assert (await claim(mine)).job.id == "b"


async def test_nothing_leaks_out_of_the_prefix(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    mine = worker(r)
    await claim(mine)
    await mine.claim_or_wait(ABLE)
    assert all(str(key).startswith("t:") for key in await r.keys("*"))
