"""A job's secrets on the way through a worker: its connector has them, and whatever it says of them is unreadable."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emp_orch.connectors.base import Run, RunFailed
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus
from emp_orch.jobs.document.model import JobError, Progress, Result
from emp_orch.jobs.document.secrets import HIDDEN
from emp_orch.jobs.document.states import JobStatus
from emp_orch.loglines import LogLine
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import local_url
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

CANARY = "canary-9d2f4e6b"
NAME = "api_key_comfy_org"
log = logging.getLogger("somebody.elses")


class Indiscreet:
    """Says what it was told: everywhere, and then ends as `how` says."""

    kind = "indiscreet"

    def __init__(self, how: str) -> None:
        self.how = how
        self.given: dict[str, str] = {}

    async def probe(self) -> ConnectorReport:
        return ConnectorReport(status=ConnectorStatus.IDLE)

    async def run(self, run: Run) -> Result:
        key = run.secrets[NAME]
        self.given = dict(run.secrets)
        log.warning("calling with %s", key)
        await run.progress(Progress(fraction=0.5, message=f"calling with {key}"))
        await asyncio.sleep(0.3)  # it is published meanwhile
        match self.how:
            case "fails":
                raise RunFailed(f"401: bad key {key}", retryable=False, detail={"headers": [{"X-Key": key}]})
            case "breaks":
                raise ValueError(f"unexpected {key}")
            case "gives too much":
                return Result(detail={"big": "x" * 2_000_000, key: object()})
            case _:
                return Result(detail={"text": {"7": f"used {key}"}})

    async def cancel(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Stage:
    queue: Queue
    claims: Claims
    folder: Path

    async def run(self, connector: Any, claim: Claimed) -> Outcome:
        binding = ServiceBinding(service="simulation", connector="indiscreet", url="http://127.0.0.1:1")
        artifacts = Artifacts(local_url(self.folder))
        given = Assignment(claim=claim, connector=connector, binding=binding, artifacts=artifacts)
        return await JobRun(self.claims, given, CONFIG, asyncio.Event()).run()

    async def claim(self) -> Claimed:
        await self.queue.submit(job(id="j", payload={"extra_data": {NAME: CANARY}}))
        claim = await self.claims.claim_or_wait({"services": ["simulation"]})
        assert isinstance(claim, Claimed)
        return claim


@pytest.fixture
async def stage(r: Client, tmp_path: Path) -> AsyncIterator[Stage]:
    claims = Claims(r, KEYS, "m-worker-0", lease_s=30)
    yield Stage(Queue(r, KEYS), claims, tmp_path)
    await claims.aclose()


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What the worker's log would have."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LogLine("%(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    yield text
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fails", f"401: bad key {HIDDEN}"),
        ("breaks", f"the connector indiscreet broke: ValueError: unexpected {HIDDEN}"),
        ("gives too much", "connector indiscreet: its result cannot be recorded"),
        ("succeeds", ""),
    ],
)
async def test_nothing_that_is_said_shows_it(stage: Stage, logged: io.StringIO, r: Client, how: str, said: str) -> None:
    claim, connector = await stage.claim(), Indiscreet(how)
    outcome = await stage.run(connector, claim)
    assert connector.given == {NAME: CANARY}
    if isinstance(outcome, Done):
        assert outcome.result == Result(detail={"text": {"7": f"used {HIDDEN}"}})
    else:
        assert isinstance(outcome, NotDone) and outcome.error.message.startswith(said)
    assert CANARY not in repr(outcome)
    assert f"calling with {HIDDEN}" in logged.getvalue() and CANARY not in logged.getvalue()
    if how == "breaks":
        assert "  Traceback" in logged.getvalue()
    for _, text in await stage.queue.said("j"):
        assert CANARY not in text
    assert CANARY not in str(await r.xrange(KEYS.events))
    log.warning("it is over: %s", CANARY)  # nothing lingers: the log is as it was
    assert CANARY in logged.getvalue()


async def test_a_job_whose_secret_is_gone_fails_and_says_so(stage: Stage, r: Client) -> None:
    claim, connector = await stage.claim(), Indiscreet("succeeds")
    await r.delete(KEYS.secrets("j"))
    outcome = await stage.run(connector, claim)
    words = "the job cannot run: its api_key_comfy_org was forgotten at its end; submit it again"
    assert outcome == NotDone(cause="failed", error=JobError(message=words)) and not connector.given  # type: ignore[arg-type]
    assert (await stage.queue.get("j")).status is not JobStatus.COMPLETED
