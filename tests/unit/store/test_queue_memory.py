"""What the twin promises beside what the stateful suite holds: time, forgetting, waiting, and no chance."""

from __future__ import annotations

import asyncio

import pytest

from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.queue.claim import Claimed, Waiting
from emp_orch.store.queue.memory.queue import MemoryClaims, MemoryQueue
from emp_orch.store.queue.submit import CancelOutcome, NoSuchJob
from support.redis.server import job

ABLE = {"services": ["simulation"]}


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> MemoryQueue:
    return MemoryQueue(clock, max_ended=3)


def worker(queue: MemoryQueue, name: str = "w0") -> MemoryClaims:
    return MemoryClaims(queue, name, lease_s=30)


async def run_one(claims: MemoryClaims) -> str:
    held = await claims.claim_or_wait(ABLE)
    assert isinstance(held, Claimed)
    assert await claims.completed(held, Result()) is JobStatus.COMPLETED
    return held.job.id


async def test_times_are_those_of_its_clock(clock: Clock, queue: MemoryQueue) -> None:
    await queue.submit(job(id="j"))
    clock.ms = 2_000
    await run_one(worker(queue))
    done = await queue.get("j")
    assert (done.created_ms, done.assigned_ms, done.finished_ms) == (1_000, 2_000, 2_000)
    assert [h.at_ms for h in done.history] == [1_000, 2_000, 2_000]


async def test_the_same_calls_give_the_same_answers() -> None:
    async def some_calls() -> tuple[object, ...]:
        queue = MemoryQueue(Clock())
        sent = await queue.submit_many([job(), job(id="named"), job(id="named")])
        return sent, await worker(queue).claim_or_wait(ABLE), list(queue.events)

    assert await some_calls() == await some_calls()


async def test_the_oldest_ends_are_forgotten_past_the_limit(queue: MemoryQueue) -> None:
    mine = worker(queue)
    for n in range(5):
        await queue.submit(job(id=f"j{n}"))
    for _ in range(5):
        await run_one(mine)
    assert [j.id for j in (await queue.list()).jobs] == ["j4", "j3", "j2"]
    with pytest.raises(NoSuchJob):
        await queue.get("j0")
    assert (await queue.submit(job(id="j0"))).created


async def test_what_is_to_be_kept_is_kept_past_the_limit(queue: MemoryQueue) -> None:
    await queue.keep_ended(4)
    mine = worker(queue)
    for n in range(5):
        await queue.submit(job(id=f"j{n}"))
        await run_one(mine)
    assert [j.id for j in (await queue.list()).jobs] == ["j4", "j3", "j2", "j1"]
    await queue.keep_ended(0)
    await queue.submit(job(id="j5"))
    await run_one(mine)
    assert [j.id for j in (await queue.list()).jobs] == ["j5", "j4", "j3"]


async def test_purge_takes_what_ended_long_enough_ago(clock: Clock, queue: MemoryQueue) -> None:
    await queue.submit_many([job(id="old"), job(id="young"), job(id="waits")])
    await queue.cancel("old")
    clock.ms += 10_000
    await queue.cancel("young")
    assert await queue.purge([JobStatus.COMPLETED]) == 0
    assert await queue.purge(ENDED, older_than_s=10) == 1
    assert [j.id for j in (await queue.list()).jobs] == ["waits", "young"]
    assert await queue.purge(ENDED) == 1


async def test_a_lane_called_unworkable_keeps_its_places(queue: MemoryQueue) -> None:
    await queue.submit_many([job(id="a"), job(id="b"), job(id="c")])
    lane = (await queue.get("a")).lane
    assert await queue.judge(lane, "no machine has it") == 3
    await queue.submit(job(id="d"))
    assert (await queue.counts())[JobStatus.UNWORKABLE] == 4
    assert await queue.cancel("b") is CancelOutcome.CANCELLED
    assert isinstance(await worker(queue).claim_or_wait(ABLE), Waiting)
    assert await queue.judge(lane, "") == 3
    assert [j.id for j in (await queue.list(status=JobStatus.PENDING)).jobs] == ["d", "c", "a"]
    assert await run_one(worker(queue)) == "a"


async def test_a_wait_ends_with_a_job_or_with_its_time(queue: MemoryQueue) -> None:
    mine = worker(queue)
    assert isinstance(await mine.claim_or_wait(ABLE), Waiting)
    assert await mine.wait(0.01) is None
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(mine.wait(5))
        await asyncio.sleep(0)
        await queue.submit(job(id="j"))
    assert waiting.result() is not None
    assert await run_one(mine) == "j"


async def test_what_the_sender_changes_later_is_its_own(queue: MemoryQueue) -> None:
    payload = {"prompt": {"seed": 1}}
    await queue.submit(job(id="j", payload=payload))
    payload["prompt"]["seed"] = 2
    assert (await queue.get("j")).payload == {"prompt": {"seed": 1}}


async def test_a_dead_workers_wake_goes_to_another(clock: Clock, queue: MemoryQueue) -> None:
    dead, alive = worker(queue, "dead"), worker(queue, "alive")
    for claims in (dead, alive):
        assert isinstance(await claims.claim_or_wait(ABLE), Waiting)
    await queue.submit(job(id="j"))
    await queue.reap()
    assert await alive.wait(0) is None
    clock.ms += 2_000
    await queue.reap()
    assert await alive.wait(0) is not None
