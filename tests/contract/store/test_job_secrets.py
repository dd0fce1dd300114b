"""What a job gives as secrets is there for its runs, and nowhere any more when it has ended, however it ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from emp_orch.jobs.document.model import JobError, Result
from emp_orch.jobs.document.secrets import Secrets
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Claims, Waiting
from emp_orch.store.queue.submit import NotNow, Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import Server, holding, job

KEYS = Keys("t:")
ABLE = {"services": ["simulation"]}
CANARY = "canary-4f1c0ffee"
NAME = "api_key_comfy_org"


def secretive(**fields: Any) -> Submission:
    return job(payload={"workflow": {}, "extra_data": {NAME: CANARY}, **fields.pop("payload", {})}, **fields)


@pytest.fixture
def queue(r: Client) -> Queue:
    return Queue(r, KEYS)


@pytest.fixture
async def worker(r: Client) -> AsyncIterator[Claims]:
    claims = Claims(r, KEYS, "w", lease_s=30)
    yield claims
    await claims.aclose()


def held_in(server: Server) -> list[str]:
    return holding(server.url, CANARY)


async def claim(worker: Claims) -> Claimed:
    answer = await worker.claim_or_wait(ABLE)
    assert isinstance(answer, Claimed), answer
    return answer


async def completed(queue: Queue, worker: Claims) -> None:
    assert await worker.completed(await claim(worker), Result()) is JobStatus.COMPLETED


async def completed_with_the_next_claim(queue: Queue, worker: Claims) -> None:
    done = await claim(worker)
    statuses, rest = await worker.complete_and_claim(ABLE, [(done, Result())], want=1)
    assert statuses == [JobStatus.COMPLETED] and isinstance(rest, Waiting)


async def failed(queue: Queue, worker: Claims) -> None:
    error = JobError(message="no", retryable=False)
    assert await worker.not_completed(await claim(worker), Cause.FAILED, error) is JobStatus.FAILED


async def timed_out(queue: Queue, worker: Claims) -> None:
    error = JobError(message="long", retryable=False)
    assert await worker.not_completed(await claim(worker), Cause.TIMEOUT, error) is JobStatus.TIMEOUT


async def cancelled_while_it_waits(queue: Queue, worker: Claims) -> None:
    await queue.cancel("j")


async def cancelled_while_it_is_unworkable(queue: Queue, worker: Claims) -> None:
    await queue.judge((await queue.get("j")).lane, "nobody can")
    await queue.cancel("j")


async def cancelled_while_it_runs(queue: Queue, worker: Claims) -> None:
    held = await claim(worker)
    await queue.cancel("j")
    assert await worker.cancelled(held) is JobStatus.CANCELLED


ENDINGS = (
    *(completed, completed_with_the_next_claim, failed, timed_out),
    *(cancelled_while_it_waits, cancelled_while_it_is_unworkable, cancelled_while_it_runs),
)


@pytest.mark.parametrize("end", ENDINGS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", ["one", "batch", "large"])
async def test_no_end_leaves_it_anywhere(
    r: Client, queue: Queue, worker: Claims, end: Callable[[Queue, Claims], Awaitable[None]], how: str, server: Server
) -> None:
    sent = secretive(id="j", payload={"pad": "x" * 10_000} if how == "large" else {})
    await (queue.submit_many([sent]) if how == "batch" else queue.submit(sent))
    assert held_in(server) == [KEYS.secrets("j")]
    assert (await queue.get("j")).secrets == (NAME,)
    await end(queue, worker)
    assert held_in(server) == []
    # Submitted once more it is the same job, which has ended: nothing comes back.
    assert not (await queue.submit(sent)).created
    assert held_in(server) == []


async def test_each_run_is_given_it_and_nobody_else(queue: Queue, worker: Claims, r: Client) -> None:
    sent = await queue.submit(secretive(max_retries=1))  # under an id of the queue's own
    first = await claim(worker)
    assert await worker.secrets(first) == Secrets({NAME: CANARY})
    await worker.not_completed(first, Cause.HANDED_BACK, JobError(message="later", retryable=True))
    assert await worker.secrets(first) is None, "the lease is another's now"
    other = Claims(r, KEYS, "w2", lease_s=30)
    second = await claim(other)
    assert await other.secrets(second) == Secrets({NAME: CANARY})
    await r.delete(KEYS.secrets(sent.job_id))
    assert await other.secrets(second) is None
    await other.aclose()


async def test_a_job_without_costs_nothing(queue: Queue, worker: Claims, r: Client) -> None:
    await queue.submit(job(id="plain"))
    held = await claim(worker)
    await r.config_resetstat()
    assert await worker.secrets(held) == Secrets()
    assert "cmdstat_evalsha" not in await r.info("commandstats")


async def test_a_retry_says_that_it_was_forgotten(queue: Queue, worker: Claims) -> None:
    await queue.submit(secretive(id="j"))
    with pytest.raises(NotNow, match="j is pending and cannot be retried"):
        await queue.retry("j")
    await failed(queue, worker)
    with pytest.raises(NotNow, match="its api_key_comfy_org was forgotten at its end; submit it again"):
        await queue.retry("j")


async def test_a_lost_worker_forgets_nothing_before_the_end(queue: Queue, r: Client, server: Server) -> None:
    await queue.submit(secretive(id="j", max_retries=0))
    short = Claims(r, KEYS, "w", lease_s=0.001)
    await claim(short)
    await short.aclose()
    swept = await Reaper(r, KEYS).reap()
    while not swept:
        swept = await Reaper(r, KEYS).reap()
    assert swept[0].status is JobStatus.FAILED and held_in(server) == []


async def test_what_is_forgotten_takes_it_along(queue: Queue, worker: Claims, r: Client, server: Server) -> None:
    """A secret that somebody put there after the end, and one whose job somebody deleted."""
    await queue.submit(secretive(id="j"))
    await failed(queue, worker)
    await r.set(KEYS.secrets("j"), '{"k":"canary-4f1c0ffee"}')
    await queue.purge([JobStatus.FAILED])
    assert held_in(server) == []
    await queue.submit(secretive(id="k"))
    await r.hdel(KEYS.jobs, "k")
    assert isinstance(await worker.claim_or_wait(ABLE), Waiting)
    assert held_in(server) == []
