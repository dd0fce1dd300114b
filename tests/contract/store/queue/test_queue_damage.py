"""Records that somebody damaged: no job is left in no place at all, and nobody else is held up."""

from __future__ import annotations

from typing import Any

import pytest

from emp_orch.jobs.document.model import JobError, Result
from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Claims, Waiting
from emp_orch.store.queue.submit import CancelOutcome, NoSuchJob, Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import job

KEYS = Keys("t:")
ABLE = {"services": ["simulation"]}


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


async def held(r: Client, queue: Queue, *, lease_s: float = 30) -> tuple[Claims, Claimed]:
    """A job, and its worker."""
    claims = Claims(r, KEYS, "w", lease_s=lease_s)
    await queue.submit(job(id="j", priority=3))
    answer = await claims.claim_or_wait(ABLE)
    assert isinstance(answer, Claimed)
    return claims, answer


async def places(r: Client) -> list[str]:
    """Where the job is; it must be in exactly one place."""
    (lane,) = map(str, await r.hkeys(KEYS.lanes))
    found = ["waits"] * await r.zcard(KEYS.lane(lane)) + ["held"] * await r.zcard(KEYS.leases)
    for status in sorted(ENDED):
        found += [str(status)] * await r.zcard(KEYS.jobs_in(status))
    return found


DAMAGE: dict[str, Any] = {"at": "no place", "runs": "many", "worker_id": None, "assigned_ms": None}


@pytest.mark.parametrize("field", DAMAGE)
async def test_a_lost_lease_of_a_damaged_record_still_goes_back(r: Client, queue: Queue, field: str) -> None:
    await held(r, queue, lease_s=0)
    await damage(r, field)
    await Reaper(r, KEYS).reap()
    expected = "failed" if field == "runs" else "waits"  # how often it ran is not known any more
    assert await places(r) == [expected]


@pytest.mark.parametrize("field", DAMAGE)
async def test_a_failed_run_of_a_damaged_record_still_goes_back(r: Client, queue: Queue, field: str) -> None:
    claims, claim = await held(r, queue)
    await damage(r, field)
    error = JobError(message="no", retryable=True)
    assert await claims.not_completed(claim, Cause.FAILED, error) is JobStatus.PENDING
    assert await places(r) == ["waits"]
    assert await r.hget(KEYS.job("j"), "runs") == "1"
    other = Claims(r, KEYS, "other", lease_s=30)
    again = await other.claim_or_wait(ABLE)
    assert isinstance(again, Claimed) and again.job.id == "j"


@pytest.mark.parametrize("field", DAMAGE)
@pytest.mark.parametrize("in_one_trip", [False, True])
async def test_a_damaged_record_still_completes(r: Client, queue: Queue, field: str, in_one_trip: bool) -> None:
    claims, claim = await held(r, queue)
    await damage(r, field)
    if in_one_trip:
        await claims.complete_and_claim(ABLE, [(claim, Result())], want=0)
    else:
        assert await claims.completed(claim, Result()) is JobStatus.COMPLETED
    assert await places(r) == ["completed"]


async def test_a_job_of_which_nobody_knows_its_place_fails(r: Client, queue: Queue) -> None:
    claims, claim = await held(r, queue)
    await damage(r, "at")
    await r.hset(KEYS.jobs, "j", "nonsense")
    error = JobError(message="no", retryable=True)
    assert await claims.not_completed(claim, Cause.FAILED, error) is JobStatus.FAILED
    assert await places(r) == ["failed"]


@pytest.mark.parametrize("field", [*DAMAGE, "adopted"])
async def test_a_damaged_record_is_taken_over_or_not_and_can_be_cancelled(r: Client, queue: Queue, field: str) -> None:
    claims, _ = await held(r, queue)
    await damage(r, field)
    adopted = await claims.adopt("j")
    assert (adopted is None) == (field in ("worker_id", "runs"))
    if field != "runs":
        assert await queue.cancel("j") is CancelOutcome.REQUESTED


async def test_an_end_whose_time_is_damaged_is_forgotten_by_age(r: Client, queue: Queue) -> None:
    claims, claim = await held(r, queue)
    await claims.completed(claim, Result())
    await r.hset(KEYS.job("j"), "finished_ms", "yesterday")
    assert await queue.purge([JobStatus.COMPLETED], older_than_s=3600) == 1


async def damage(r: Client, field: str) -> None:
    value = DAMAGE.get(field, "often")
    if value is None:
        await r.hdel(KEYS.job("j"), field)
    else:
        await r.hset(KEYS.job("j"), field, value)


async def test_a_waiting_job_that_cannot_be_read_is_not_half_cancelled(r: Client, queue: Queue) -> None:
    await queue.submit(job(id="j"))
    await r.hset(KEYS.jobs, "j", "nonsense")
    with pytest.raises(NoSuchJob):
        await queue.cancel("j")
    assert await places(r) == ["waits"]
    claims = Claims(r, KEYS, "w", lease_s=30)
    assert isinstance(await claims.claim_or_wait(ABLE), Waiting)
    assert await places(r) == ["failed"]
