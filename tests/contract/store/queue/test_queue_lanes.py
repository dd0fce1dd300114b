"""Lanes, classes of workers, verdicts, batches and forgetting, on Redis and on Valkey."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from math import ceil
from typing import Any, cast

import pytest
from redis.exceptions import OutOfMemoryError

from emp_orch.jobs.document.model import JobError, Progress, Result
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.matching.requirements import lane_of
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue import limits
from emp_orch.store.queue.claim import Claimed, Claims, Lease, RunRef, Waiting
from emp_orch.store.queue.explain import Explainer
from emp_orch.store.queue.scripts import Scripts
from emp_orch.store.queue.submit import BATCH, CancelOutcome, NoSuchJob, NotNow, Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.pipelined import Pipelined
from support.redis.server import job, until

KEYS = Keys("t:")
ABLE = {"services": ["simulation"]}


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


@pytest.fixture
async def hire(r: Client) -> AsyncIterator[Any]:
    """Makes workers, and closes them."""
    made: list[Claims] = []

    def worker(name: str, lease_s: float = 30) -> Claims:
        made.append(Claims(r, KEYS, name, lease_s=lease_s))
        return made[-1]

    yield worker
    for claims in made:
        await claims.aclose()


async def claim(claims: Claims, capabilities: dict[str, Any] = ABLE) -> Claimed:
    answer = await claims.claim_or_wait(capabilities)
    assert isinstance(answer, Claimed), answer
    return answer


async def idle(claims: Claims, capabilities: dict[str, Any] = ABLE) -> None:
    assert isinstance(await claims.claim_or_wait(capabilities), Waiting)


async def test_a_batch_keeps_its_order_and_is_harmless_twice(r: Client, queue: Queue, hire: Any) -> None:
    jobs = [job(id=f"j{n:04}", payload={"n": n}) for n in range(1_203)]
    first = await queue.submit_many(jobs)
    assert [s.job_id for s in first] == [j.id for j in jobs] and all(s.created for s in first)
    mine = hire("w")
    assert [(await claim(mine)).job.payload["n"] for _ in range(3)] == [0, 1, 2]
    again = await queue.submit_many([*jobs[:2], job(id="j0002", payload={"n": "other"}), job(id="new")])
    assert [(s.created, s.same) for s in again] == [(False, True), (False, True), (False, False), (True, True)]
    assert [s.status for s in again[:2]] == [JobStatus.ASSIGNED, JobStatus.ASSIGNED]
    assert (await queue.counts())[JobStatus.PENDING] == 1_203 - 3 + 1
    types = [e.type for e in await Events(r, KEYS).recent(1000)]
    assert types.count("jobs_submitted") == ceil(1_203 / BATCH) + 1 and "job_submitted" not in types


async def test_ids_of_a_batch_that_is_repeated_in_itself(queue: Queue) -> None:
    first, second = await queue.submit_many([job(id="twice"), job(id="twice")])
    assert first.created and not second.created and second.same
    assert (await queue.list()).total == 1


async def test_a_large_payload_travels_whole_and_is_forgotten(r: Client, queue: Queue, hire: Any) -> None:
    payload = {"text": "x" * 100_000}
    await queue.submit(job(id="large", payload=payload))
    assert not (await queue.submit(job(id="large", payload={"text": "y" * 100_000}))).same
    assert (await queue.submit(job(id="large", payload=payload))).same
    assert (await queue.get("large")).payload == payload
    mine = hire("w")
    held = await claim(mine)
    assert held.job.payload == payload
    await mine.completed(held, Result())
    assert await queue.purge([JobStatus.COMPLETED]) == 1
    assert not [k for k in await r.keys("*") if "large" in k]


@pytest.mark.parametrize("seed", range(5))
async def test_the_best_head_over_many_lanes_is_exactly_the_next(r: Client, queue: Queue, hire: Any, seed: int) -> None:
    """Two workers that serve overlapping lanes always get priority first, then first come."""
    rng = random.Random(seed)
    lanes = [{"positive": {"tier": n}} for n in range(7)]
    sees = {"low": 3, "high": 6}  # a number is a minimum: tier n takes the lanes 0 … n
    workers = {name: hire(name) for name in sees}
    waiting: list[tuple[int, int, int, str]] = []
    for step in range(400):
        if rng.random() < 0.5:
            tier, priority = rng.randrange(7), rng.choice((0, 0, 5, -3))
            await queue.submit(job(id=f"j{step}", priority=priority, requirements=lanes[tier]))
            waiting.append((-priority, step, tier, f"j{step}"))
        elif waiting and rng.random() < 0.1:
            gone = rng.choice(waiting)
            waiting.remove(gone)
            assert await queue.cancel(gone[3]) is CancelOutcome.CANCELLED
        else:
            name = rng.choice(list(sees))
            mine = sorted(w for w in waiting if w[2] <= sees[name])
            answer = await workers[name].claim_or_wait({"services": ["simulation"], "tier": sees[name]})
            if not mine:
                assert isinstance(answer, Waiting)
                continue
            assert isinstance(answer, Claimed) and answer.job.id == mine[0][3]
            waiting.remove(mine[0])
            if rng.random() < 0.2:  # it comes back to its old place, and this worker is to pass it over
                error = JobError(message="again", retryable=True)
                assert await workers[name].not_completed(answer, Cause.HANDED_BACK, error) is JobStatus.PENDING
                await queue.cancel(answer.job.id)


async def test_many_lanes_that_nobody_here_serves_hide_nothing(queue: Queue, hire: Any) -> None:
    await queue.submit_many([job(priority=9, requirements={"positive": {"only": n}}) for n in range(1_000)])
    await queue.submit(job(id="mine"))
    mine = hire("w")
    assert (await claim(mine)).job.id == "mine"
    await idle(mine)
    view = await queue.lanes()
    assert len(view) == 1_000 and {v.depth for v in view} == {1}


async def test_a_new_lane_wakes_one_worker_of_a_class(queue: Queue, hire: Any) -> None:
    """It looks for all of them. What the lane asks tells nobody of them apart."""
    crowd = [hire(f"w{n}") for n in range(5)]
    for worker in crowd:
        await idle(worker)
    await queue.submit(job("video", id="not-for-them"))
    woken = [w for w in crowd if await w.wait(0.05) is not None]
    assert len(woken) == 1
    await idle(woken[0])
    assert [w for w in crowd if await w.wait(0.02) is not None] == [], "the others need not look"
    await queue.submit(job(id="for-them"))
    woken = [w for w in crowd if await w.wait(0.05) is not None]
    assert len(woken) == 1 and (await claim(woken[0])).job.id == "for-them"


async def test_a_lane_that_asks_something_new_reaches_who_can_do_it(queue: Queue, hire: Any) -> None:
    """Nobody had asked for the size: those who differ in it only were one class."""
    big = {"services": ["simulation"], "size": 9}
    crowd = {hire(f"w{n}"): big if n == 3 else ABLE for n in range(4)}
    for worker, capabilities in crowd.items():
        await idle(worker, capabilities)
    await queue.submit(job(id="j", requirements={"positive": {"size": 5}}))
    got: list[str] = []
    for _ in range(3):
        for worker, capabilities in crowd.items():
            if await worker.wait(0.02) is not None:
                answer = await worker.claim_or_wait(capabilities)
                if isinstance(answer, Claimed):
                    assert capabilities is big
                    got.append(answer.job.id)
    assert got == ["j"]
    await queue.submit(job(id="k", requirements={"positive": {"size": 5}}))
    (small, *_) = crowd
    await idle(small)
    assert [w for w, c in crowd.items() if c is not big and await w.wait(0.02) is not None] == []


async def test_a_lane_is_new_until_a_job_came_into_it(queue: Queue, hire: Any) -> None:
    """An id that is there already, sent again for another lane, must not make that lane known to nobody."""
    await queue.submit(job(id="b"))
    mine = hire("w")
    await claim(mine)
    await idle(mine)
    assert not (await queue.submit(job(id="b", requirements={"negative": {"x": 1}}))).created
    await queue.submit(job(id="j", requirements={"negative": {"x": 1}}))
    assert await mine.wait(1) is not None
    assert (await claim(mine)).job.id == "j"


async def test_the_other_jobs_of_a_new_lane_reach_those_who_wait(queue: Queue, hire: Any) -> None:
    """Whoever submitted them did not know who serves the lane, and woke one worker only."""
    workers = [hire(f"w{n}") for n in range(4)]
    for worker in workers:
        await idle(worker)
    await queue.submit_many([job(id=f"j{n}", requirements={"negative": {"x": 1}}) for n in range(3)])
    got = []
    for _ in range(3):
        for worker in workers:
            if await worker.wait(0.02) is not None:
                answer = await worker.claim_or_wait(ABLE)
                got += [answer.job.id] if isinstance(answer, Claimed) else []
    assert sorted(got) == ["j0", "j1", "j2"]


async def test_a_verdict_moves_a_whole_lane_and_back(r: Client, queue: Queue, hire: Any) -> None:
    await queue.submit_many([job("video", id=f"v{n}") for n in range(3)])
    await queue.submit(job(id="fine"))
    lane = lane_of(job("video").requirements)
    assert await queue.judge(lane, "no worker has video") == 3
    assert await queue.judge(lane, "no worker has video") == -1
    counts = await queue.counts()
    assert (counts[JobStatus.UNWORKABLE], counts[JobStatus.PENDING]) == (3, 1)
    found = await queue.get("v0")
    assert found.status is JobStatus.UNWORKABLE and found.error is not None
    assert found.error.message == "no worker has video" == await Explainer(r, KEYS, "f").why(found)
    page = await queue.list(status=JobStatus.UNWORKABLE)
    assert [j.id for j in page.jobs] == ["v2", "v1", "v0"] and page.total == 3
    assert [j.id for j in (await queue.list(status=JobStatus.PENDING)).jobs] == ["fine"]
    assert [j.id for j in (await queue.list()).jobs] == ["fine", "v2", "v1", "v0"]
    able = {"services": ["video"]}
    await idle(hire("video"), able)
    assert await queue.cancel("v1") is CancelOutcome.CANCELLED
    await queue.submit(job("video", id="v3"))  # it is known to be hopeless
    assert (await queue.get("v3")).status is JobStatus.UNWORKABLE
    assert await queue.judge(lane, "") == 3
    assert [(await claim(hire("video"), able)).job.id for _ in range(3)] == ["v0", "v2", "v3"]
    types = [e.type for e in await Events(r, KEYS).recent(1000)]
    assert types.count("lane_unworkable") == 1 and types.count("lane_workable") == 1


async def test_taking_a_verdict_back_wakes_those_who_wait(queue: Queue, hire: Any) -> None:
    mine = hire("w")
    await queue.submit(job(id="known"))
    await claim(mine)
    await idle(mine)
    lane = lane_of(job().requirements)
    await queue.judge(lane, "nobody")
    await queue.submit(job(id="j"))
    await mine.wait(0.02)
    await idle(mine)
    await queue.judge(lane, "")
    assert await mine.wait(1) is not None
    assert (await claim(mine)).job.id == "j"


async def test_a_lane_shows_its_depth_and_its_oldest(queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="old", priority=1))
    await queue.submit(job(id="urgent", priority=7))
    await queue.submit(job("video", id="v"))
    views = {v.requirements.service: v for v in await queue.lanes()}
    assert views["simulation"].depth == 2 and views["simulation"].head == "urgent"
    assert views["simulation"].oldest_ms == (await queue.get("old")).created_ms
    assert views["video"].depth == 1
    mine = hire("w")
    await claim(mine)
    await claim(mine)
    assert [v.requirements.service for v in await queue.lanes()] == ["video"]


async def test_filters_and_pages_reach_every_job_once(queue: Queue, hire: Any) -> None:
    rng = random.Random(3)
    expected = []
    for n in range(60):
        service = rng.choice(("simulation", "video"))
        await queue.submit(job(service, id=f"j{n:02}", priority=rng.randrange(40)))
        expected.append((f"j{n:02}", service))
    mine = hire("w")
    for n in range(20):
        held = await claim(mine, {"services": ["simulation", "video"]})
        if n % 3 == 0:
            await mine.completed(held, Result())
        elif n % 3 == 1:
            await mine.progress(held, Progress(fraction=0.5))
    ids = [i for i, _ in reversed(expected)]
    pages = [await queue.list(limit=7, offset=o) for o in range(0, 63, 7)]
    assert [j.id for p in pages for j in p.jobs] == ids and {p.total for p in pages} == {60}
    video = await queue.list(service="video", limit=1000)
    assert [j.id for j in video.jobs] == [i for i, s in reversed(expected) if s == "video"]
    by_status = [j.id for s in JobStatus for j in (await queue.list(status=s, limit=1000)).jobs]
    assert sorted(by_status) == sorted(ids)
    counts = await queue.counts()
    for status in JobStatus:
        assert (await queue.list(status=status)).total == counts[status]


async def test_purging_forgets_ended_jobs_only(r: Client, queue: Queue, hire: Any) -> None:
    mine = hire("w")
    for n in range(5):
        await queue.submit(job(id=f"j{n}"))
    for n in range(4):
        held = await claim(mine)
        await mine.began(held, RunRef(connector="simulation", url="http://127.0.0.1:1", ref=str(n)))
        await mine.completed(held, Result())
    with pytest.raises(NotNow):
        await queue.purge([JobStatus.PENDING])
    assert await queue.purge([JobStatus.COMPLETED], older_than_s=3600) == 0
    assert await queue.purge([JobStatus.COMPLETED], keep=3) == 1
    with pytest.raises(NoSuchJob):
        await queue.get("j0")

    async def all_old_enough() -> bool:
        await queue.purge(sorted(ENDED), older_than_s=0.001)
        return (await queue.list()).total == 1

    await until(all_old_enough)
    assert await r.lrange(KEYS.jobs_forgotten, 0, -1) == ["j0", "j1", "j2", "j3"], "their artifacts are to go"
    assert not await r.keys(KEYS.job("*"))


async def test_what_ended_long_ago_is_found_behind_what_ended_just_now(
    r: Client, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many with low numbers were retried and ended again."""
    monkeypatch.setattr("emp_orch.store.queue.submit.FORGET_BATCH", 2)
    for n in range(7):
        await queue.submit(job(id=f"j{n}"))
        await queue.cancel(f"j{n}")
    for n in (5, 6):
        await r.hset(KEYS.job(f"j{n}"), "finished_ms", 1)
    assert await queue.purge([JobStatus.CANCELLED], older_than_s=3600) == 2
    assert (await queue.list()).total == 5


async def test_adopting_needs_the_same_worker_and_replaces_the_token(queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="j"))
    before = hire("w")
    held = await claim(before)
    ref = RunRef(connector="simulation", url="http://127.0.0.1:1", ref="abc")
    await before.began(held, ref)
    assert await hire("other").adopt("j") is None
    assert await hire("w").adopt("nothing") is None
    after = hire("w")
    adopted = await after.adopt("j")
    assert adopted is not None and adopted.run == ref and adopted.times == 1 and adopted.claim.job.attempts == 1
    assert await before.completed(held, Result()) is None, "the former life's token counts no more"
    assert await after.completed(adopted.claim, Result()) is JobStatus.COMPLETED
    assert await after.adopt("j") is None


async def test_progress_is_kept_as_a_short_stream(queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="j"))
    mine = hire("w")
    held = await claim(mine)
    for n in range(250):
        await mine.progress(held, Progress(fraction=n / 250))
    said = await queue.said("j")
    assert len(said) == 200 and said[-1][1] == '{"fraction":0.996}'
    assert len(await queue.said("j", said[-3][0])) == 3


async def test_a_history_is_capped_from_its_old_end(queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="j"))
    mine, other = hire("w1"), hire("w2")
    back = JobError(message="m" * 500, retryable=True)
    for n in range(60):
        worker = mine if n % 2 else other
        assert await worker.not_completed(await claim(worker), Cause.HANDED_BACK, back) is JobStatus.PENDING
    history = (await queue.get("j")).history
    assert 30 < len(history) < 100 and history[0].event == "job_submitted" and history[-1].event == "job_requeued"


async def test_a_job_whose_document_is_gone_blocks_nobody(r: Client, queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="gone"))
    await queue.submit(job(id="here"))
    await r.hdel(KEYS.jobs, "gone")
    mine = hire("w")
    assert (await claim(mine)).job.id == "here"
    assert not await r.exists(KEYS.job("gone")), "no half record is left"


async def test_many_on_one_connection_are_answered_in_order(r: Client, queue: Queue) -> None:
    line = Pipelined(r)
    fast = Queue(r, KEYS, line.call)
    async with asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(fast.submit(job(id=f"j{n}", payload={"n": n}))) for n in range(300)]
    assert [t.result().job_id for t in sent] == [f"j{n}" for n in range(300)]
    assert (await queue.counts())[JobStatus.PENDING] == 300
    await line.aclose()


class LosesAnAnswer:
    """A connection that breaks once, after Redis did what it was told and before it said so."""

    def __init__(self, r: Client) -> None:
        self._r = r
        self.breaks = False

    async def call(self, *args: Any) -> Any:
        said = await self._r.execute_command(*args)
        if self.breaks:
            self.breaks = False
            raise ConnectionError("reset by peer")
        return said


async def test_a_worker_whose_answer_was_lost_is_not_taken_for_one_that_waits(
    r: Client, queue: Queue, hire: Any
) -> None:
    """It was registered, claims again and is busy: the wake of the next job must go to the one who really waits."""
    line, waits = LosesAnAnswer(r), hire("a")  # the first of two who came in the same millisecond
    busy = Claims(r, KEYS, "b", lease_s=30, line=cast(Pipelined, line))
    await queue.submit(job(id="first"))
    await busy.completed(await claim(busy), Result())
    await idle(waits)
    line.breaks = True
    with pytest.raises(ConnectionError):
        await busy.claim_or_wait(ABLE)
    await queue.submit(job(id="second"))  # it wakes the one who waits longest; the other is faster
    assert (await claim(busy)).job.id == "second"
    assert await waits.wait(1) is not None
    await idle(waits)
    await queue.submit(job(id="third"))
    assert await waits.wait(1) is not None
    await busy.aclose()


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.PENDING])
async def test_what_a_run_saved_before_it_went_wrong_is_deleted_some_day(
    r: Client, queue: Queue, hire: Any, status: JobStatus
) -> None:
    """Nothing names those files: the job itself is remembered as one that may have left some."""
    mine = hire("w")
    await queue.submit(job(id="j"))
    held = await claim(mine)
    if status is JobStatus.CANCELLED:
        await queue.cancel("j")
    error = JobError(message="the second output could not be saved", retryable=status is JobStatus.PENDING)
    assert await mine.not_completed(held, Cause.FAILED, error) is status
    if status is JobStatus.PENDING:
        await mine.completed(await claim(hire("other")), Result())
    await queue.purge(ENDED)
    assert await r.lrange(KEYS.jobs_forgotten, 0, -1) == ["j"]


async def test_who_died_while_it_waited_goes_with_its_class(
    r: Client, queue: Queue, hire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLASS_KEPT_MS", -1)
    await idle(hire("dead"))
    await Reaper(r, KEYS).reap()
    assert not await r.keys(f"{KEYS.prefix}*waiting*") and not await r.keys(KEYS.waiting_in("*"))


async def test_a_lane_that_was_forgotten_meanwhile_gets_no_classes(r: Client, queue: Queue, hire: Any) -> None:
    mine = hire("w")
    await mine.claim_or_wait(ABLE)
    await queue.submit(job(id="j"))
    (lane,) = map(str, await r.hkeys(KEYS.lanes))
    (name,) = map(str, await r.zrange(KEYS.classes, 0, 0))
    known = await r.get(KEYS.lanes_version)
    await r.delete(KEYS.lanes)
    await Scripts(r, KEYS).register(name, await r.get(KEYS.worker_class(name)), known, lane)
    assert not await r.exists(KEYS.lane_classes(lane))


async def test_a_job_whose_payload_is_gone_is_not_run_without(r: Client, queue: Queue, hire: Any) -> None:
    await queue.submit(job(id="hollow", payload={"text": "x" * 100_000}))
    await queue.submit(job(id="whole"))
    await r.delete(KEYS.payload("hollow"))
    assert (await claim(hire("w"))).job.id == "whole"
    found = await r.hgetall(KEYS.job("hollow"))
    assert found["status"] == "failed" and "its payload is gone" in found["error"]


async def test_a_full_redis_takes_no_lease_from_a_worker_that_renews(r: Client, queue: Queue, hire: Any) -> None:
    """Ending a run needs no memory, so the sweep goes on: keeping a lease must need none either."""
    mine = hire("w", lease_s=0.3)
    await queue.submit(job(id="j"))
    held = await claim(mine)
    await mine.renew(held)  # the script is known
    info = await r.info("memory")
    await r.config_set("maxmemory", int(info["used_memory"]) // 2)
    try:
        with pytest.raises(OutOfMemoryError):
            await queue.submit(job(id="refused", requirements={"customer": "c"}))
        assert await mine.renew(held) is Lease.OK
        assert await mine.completed(held, Result()) is JobStatus.COMPLETED
    finally:
        await r.config_set("maxmemory", 0)
    assert await r.hlen(KEYS.lanes) == 1 and (await queue.list()).total == 1, "what was refused left nothing"


async def test_a_claim_whose_answer_was_lost_costs_the_job_nothing(r: Client, queue: Queue) -> None:
    """Nobody runs it: it is not left to its lease, and no attempt is counted."""
    line = LosesAnAnswer(r)
    mine = Claims(r, KEYS, "w", lease_s=30, line=cast(Pipelined, line))
    await queue.submit(job(id="first", max_retries=0))
    await queue.submit(job(id="second"))
    await idle(mine, {"services": ["other"]})  # it knows the lanes
    await mine.claim_or_wait(ABLE)
    await queue.submit(job(id="third", priority=1, max_retries=0))
    line.breaks = True
    with pytest.raises(ConnectionError):
        await mine.claim_or_wait(ABLE)
    assert await r.hget(KEYS.job("third"), "status") == "assigned"
    again = await claim(mine)
    assert again.job.id == "third" and again.job.attempts == 1
    assert await mine.renew(again) is Lease.OK
    line.breaks = True
    with pytest.raises(ConnectionError):
        await mine.claim_or_wait(ABLE)
    await mine.leave()
    assert await r.zrange(KEYS.leases, 0, -1) == ["first", "third"], "it claims no more, and holds what it knows of"
    assert (await queue.get("second")).status is JobStatus.PENDING
    await mine.aclose()


async def test_a_lane_that_was_forgotten_and_came_back_unworkable_is_given_to_nobody(
    r: Client, hire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a class noted of where a forgotten lane began is noted no more when the lane is matched again."""
    monkeypatch.setattr(limits, "LANE_KEPT_MS", -1)
    queue, mine, reaper = Queue(r, KEYS), hire("w"), Reaper(r, KEYS)
    other = {"negative": {"gpu": 9}}
    await queue.submit_many([job(id="a", priority=5), job(id="b", priority=5), job(id="gone", requirements=other)])
    assert (await claim(mine)).job.id == "a"
    await queue.cancel("gone")
    lane = lane_of(job(requirements=other).requirements)

    async def forgotten() -> bool:
        await reaper.reap()
        return not await r.hexists(KEYS.lanes, lane)

    await until(forgotten)
    await queue.submit(job(id="back", requirements=other))
    assert await queue.judge(lane, "nobody could") == 1
    assert (await claim(mine)).job.id == "b"
    await idle(mine)
