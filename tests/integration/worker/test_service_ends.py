"""A job whose service ends during it: its error says so at once, from what the machine's agent left in a file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from emp_orch.connectors.base import Run, RunFailed
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, ProgramEnd
from emp_orch.jobs.document.model import Crash, Result
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.runtimes.process import exit_files
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.worker.config import ServiceBinding
from emp_orch.worker.run.assignment import Assignment
from emp_orch.worker.run.job import JobRun
from emp_orch.worker.run.outcome import Done, NotDone, Outcome
from support.redis.server import job
from support.worker.config import CONFIG
from support.worker.processes import KEYS

WORDS = "comfyui exited with status 3 during this job; last words: CUDA error"


class Service:
    """A connector whose service is `port`: it waits, as for one to come back, until it is told how the run ends."""

    kind = "test"

    def __init__(self, *, begins: bool = True, saves: bool = False) -> None:
        self.begun = asyncio.Event()
        self.ends: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._begins, self._saves = begins, saves

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        if self._begins:
            await run.began("p1")
        if self._saves:

            async def one() -> AsyncIterator[bytes]:
                yield b"x"

            await run.save("a.txt", "text/plain", one())
        self.begun.set()
        return await self.ends

    async def cancel(self) -> None:
        raise AssertionError("a service that is known to be dead is not asked to stop")

    async def close(self) -> None: ...


@pytest.fixture
async def claims(r: Client) -> AsyncIterator[Claims]:
    made = Claims(r, KEYS, "m-worker-0", lease_s=30)
    yield made
    await made.aclose()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    exit_files.make(tmp_path)
    return tmp_path


def end(seconds_ago: float = 0.0, **changes: Any) -> ProgramEnd:
    at_ms = int((time.time() - seconds_ago) * 1000)
    return ProgramEnd(**{"at_ms": at_ms, "pid": 7, "exit_status": 3, "lines": ("x", "CUDA error"), **changes})


class Running:
    """One job on one connector."""

    def __init__(self, claims: Claims, claim: Claimed, service: Service, machine: Path | None, out: Path) -> None:
        binding = ServiceBinding(service="comfyui", connector="test", url="http://127.0.0.1:1")
        given = Assignment(
            claim=claim, connector=service, binding=binding, artifacts=Artifacts(f"file://{out}"), machine=machine
        )
        self.task = asyncio.create_task(JobRun(claims, given, CONFIG, asyncio.Event()).run())
        self.service = service


async def begun(r: Client, claims: Claims, machine: Path | None, tmp_path: Path, **how: bool) -> Running:
    await Queue(r, KEYS).submit(job(service="comfyui"))
    claim = await claims.claim_or_wait({"services": ["comfyui"]})
    assert isinstance(claim, Claimed)
    running = Running(claims, claim, Service(**how), machine, tmp_path / "out")
    await running.service.begun.wait()
    return running


async def outcome_of(running: Running, *, within_s: float = 5.0) -> Outcome:
    async with asyncio.timeout(within_s):
        return await running.task


async def test_the_end_of_its_service_ends_a_run_at_once(
    r: Client, claims: Claims, machine: Path, tmp_path: Path
) -> None:
    running = await begun(r, claims, machine, tmp_path)
    exit_files.leave(machine, "comfyui-gpu0", end())
    told = time.monotonic()
    outcome = await outcome_of(running)
    assert time.monotonic() - told < 1.0
    assert isinstance(outcome, NotDone) and outcome.cause is Cause.CRASHED
    assert outcome.error.message == WORDS and outcome.error.retryable
    assert outcome.error.detail == {"service": "comfyui", "exit_status": 3, "last_words": ["x", "CUDA error"]}
    assert outcome.crash == Crash(worker_id="m-worker-0", service="comfyui", how="status 3")


@pytest.mark.parametrize(
    ("program", "ago_s", "ends"),
    [("comfyui-gpu0", 60, False), ("comfyui-gpu1", 0, False), ("other-gpu0", 0, False), ("comfyui", 0, True)],
)
async def test_only_the_service_of_this_run_ends_it_and_only_since_its_begin(
    program: str, ago_s: float, ends: bool, r: Client, claims: Claims, machine: Path, tmp_path: Path
) -> None:
    """One that all slots share ends the run too, but nothing counts against the job: another's may have done it."""
    running = await begun(r, claims, machine, tmp_path)
    exit_files.leave(machine, program, end(ago_s))
    if not ends:
        await asyncio.wait([running.task], timeout=0.5)
        running.service.ends.set_result(Result())
        assert isinstance(await outcome_of(running), Done)
        return
    outcome = await outcome_of(running)
    assert isinstance(outcome, NotDone) and (outcome.cause, outcome.crash) == (Cause.CRASHED, None)


async def test_a_connection_that_breaks_before_the_agent_has_told_is_explained(
    r: Client, claims: Claims, machine: Path, tmp_path: Path
) -> None:
    running = await begun(r, claims, machine, tmp_path)
    broken = RunFailed("the service does not answer: reset", retryable=True)
    broken.__cause__ = ConnectionResetError("reset")
    running.service.ends.set_exception(broken)
    await asyncio.sleep(0.05)  # what the agent takes
    exit_files.leave(machine, "comfyui-gpu0", end(exit_status=None, signal="SIGKILL", lines=()))
    outcome = await outcome_of(running)
    assert isinstance(outcome, NotDone) and outcome.cause is Cause.CRASHED
    words = "comfyui was ended by SIGKILL (somebody killed it, or memory ran out) during this job; it said nothing"
    assert outcome.error.message == words


async def test_without_word_of_an_end_a_run_says_what_it_met(
    r: Client, claims: Claims, machine: Path, tmp_path: Path
) -> None:
    for folder in (machine, None, tmp_path / "of an earlier version"):
        running = await begun(r, claims, folder, tmp_path)
        broken = RunFailed("the service does not answer: reset", retryable=True)
        broken.__cause__ = ConnectionResetError("reset")
        running.service.ends.set_exception(broken)
        asked = time.monotonic()
        outcome = await outcome_of(running)
        assert time.monotonic() - asked < (0.5 if folder is not machine else 3.0), "where nobody tells nobody waits"
        assert isinstance(outcome, NotDone) and outcome.cause is Cause.FAILED
        assert outcome.error.message == "the service does not answer: reset"


async def test_a_run_that_had_not_begun_is_handed_back_and_one_that_saves_goes_on(
    r: Client, claims: Claims, machine: Path, tmp_path: Path
) -> None:
    running = await begun(r, claims, machine, tmp_path, begins=False)
    exit_files.leave(machine, "comfyui-gpu0", end())
    outcome = await outcome_of(running)
    assert isinstance(outcome, NotDone) and (outcome.cause, outcome.crash) == (Cause.HANDED_BACK, None)
    assert outcome.error.message == WORDS

    running = await begun(r, claims, machine, tmp_path, saves=True)
    exit_files.leave(machine, "comfyui-gpu0", end())
    await asyncio.wait([running.task], timeout=0.5)
    assert not running.task.done(), "what it made may be had from the service's next life"
    running.service.ends.set_result(Result())
    assert isinstance(await outcome_of(running), Done)
