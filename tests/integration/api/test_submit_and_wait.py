"""`POST /api/jobs?wait=`, and `emp submit --wait` through it: one request for a short job, events for others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from emp_orch.jobs.document.model import JobError, Result
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.redis.keys import Keys
from support.http.stack import Producer, Stack, fleet_of

End = Callable[[Claims, Claimed], Coroutine[Any, Any, object]]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("wait"))
    with made.running():
        asyncio.run(made.up())
        yield made


@pytest.fixture
async def producer(stack: Stack) -> AsyncIterator[Producer]:
    r = stack.client()
    for key in await r.keys():
        if key != "events":
            await r.delete(key)
    yield Producer(r, Keys())
    await r.aclose()


async def completed(claims: Claims, claim: Claimed) -> None:
    await claims.completed(claim, Result(detail={"caption": "a lake"}))


async def failed(claims: Claims, claim: Claimed) -> None:
    await claims.not_completed(claim, Cause.FAILED, JobError(message="no such model"))


@asynccontextmanager
async def worker(producer: Producer, end: End, *, after_s: float = 0.0) -> AsyncIterator[None]:
    """Takes one job and ends it."""
    claims = Claims(producer.redis, producer.keys, "w", lease_s=30)

    async def work() -> None:
        while not isinstance(claim := await claims.claim_or_wait({"services": ["simulation"]}), Claimed):
            await claims.wait(claim.seconds)
        await asyncio.sleep(after_s)
        await end(claims, claim)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        yield
        await task
    await claims.aclose()


async def post(stack: Stack, query: str, body: Any, status: int = 201) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.post(f"{stack.api}/api/jobs{query}", json=body) as answer:
        found: dict[str, Any] = await answer.json()
        assert answer.status == status, found
        return found


JOB = {"service": "simulation"}


async def test_the_answer_comes_with_the_end_of_the_job(stack: Stack, producer: Producer) -> None:
    async with worker(producer, completed, after_s=0.2):
        answer = await post(stack, "?wait=30", JOB)
    job = answer["data"]["job"]
    assert (job["status"], job["result"]["detail"]) == ("completed", {"caption": "a lake"})
    assert job["job_id"] == answer["job_id"] == answer["data"]["job_id"]


async def test_a_job_that_has_ended_before_is_told_at_once(stack: Stack, producer: Producer) -> None:
    async with worker(producer, failed):
        await post(stack, "?wait=30", {**JOB, "id": "mine", "max_retries": 0})
    again = await post(stack, "?wait=30", {**JOB, "id": "mine", "max_retries": 0}, status=200)
    assert again["data"]["created"] is False
    assert again["data"]["job"]["error"]["message"] == "no such model"


async def test_after_the_wait_the_job_goes_on(stack: Stack, producer: Producer) -> None:
    began = time.monotonic()
    answer = await post(stack, "?wait=1", JOB)
    assert time.monotonic() - began >= 1.0
    assert answer["data"]["job"] is None and answer["data"]["status"] == "pending"
    assert (await post(stack, "", JOB))["data"]["job"] is None


@pytest.mark.parametrize(
    ("query", "body", "words"),
    [
        ("?wait=301", JOB, "wait: expected a whole number from 0 to 300"),
        ("?wait=soon", JOB, "wait: expected a whole number"),
        ("?wiat=3", JOB, "there is no parameter 'wiat'"),
        ("?wait=3", [JOB], "wait: is for one job"),
    ],
)
async def test_what_cannot_be_waited_for(stack: Stack, query: str, body: Any, words: str) -> None:
    assert words in (await post(stack, query, body, status=400))["error"]


async def submit(stack: Stack, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(stack.layout.root), "submit", *options]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done


async def jobs(producer: Producer) -> int:
    return int(await producer.redis.hlen(producer.keys.jobs))


async def test_the_command_tells_the_end(stack: Stack, producer: Producer) -> None:
    async with worker(producer, completed):
        done = await submit(stack, "simulation", "--wait")
    job_id = done.stderr.split()[1]
    assert (done.returncode, done.stdout) == (0, f'job {job_id} completed\n  answer {{"caption":"a lake"}}\n')
    assert await jobs(producer) == 1


async def test_the_command_goes_on_with_the_same_job(stack: Stack, producer: Producer) -> None:
    """Longer than the request waits: the queue's events tell the rest, and nothing is submitted twice."""
    async with worker(producer, failed, after_s=1.5):
        done = await submit(stack, "simulation", "--retries", "0", "--wait")
    assert done.returncode == 1 and "failed: no such model" in done.stdout, done
    assert done.stderr.count("job ") == 1 and "was there already" not in done.stderr
    assert await jobs(producer) == 1


async def test_without_the_api_it_is_the_same(stack: Stack, producer: Producer) -> None:
    stack.stop("api")
    try:
        async with worker(producer, completed):
            done = await submit(stack, "simulation", "--wait")
        assert done.returncode == 0 and "completed" in done.stdout, done
        assert await jobs(producer) == 1
    finally:
        stack.start("api")
        await stack.answers(f"{stack.api}/ready")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("../x", "--wait"), 2, "service: expected a service's name"),
        (("simulation", "--id", "taken", "--wait"), 1, "taken"),
        (("strange", "--wait", "--timeout", "2"), 4, "the applied fleet has no service 'strange'"),
    ],
)
async def test_what_cannot_be_accepted(
    stack: Stack, producer: Producer, options: tuple[str, ...], code: int, words: str
) -> None:
    await producer.apply(fleet_of("m"))
    await post(stack, "", {**JOB, "id": "taken", "payload": {"prompt": "another"}})
    done = await submit(stack, *options)
    assert done.returncode == code and words in done.stderr, done
