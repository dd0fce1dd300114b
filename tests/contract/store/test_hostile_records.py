"""Words that a job, a service or a stranger chose, kept in a real Redis and read back whole."""

from __future__ import annotations

import pytest

from emp_orch.jobs.document.model import JobError
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.outcome.retry import Cause
from emp_orch.store.fleet.events import Events
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.redis.server import job

KEYS = Keys()


@pytest.mark.parametrize("words", ["a\u2028b", "a\x85b", "a\nb\r\nc", "a\x1cb", "\x00|", '"}\n{"', "\U0001f600" * 300])
async def test_a_history_holds_whatever_was_said(r: Client, words: str) -> None:
    queue, claims = Queue(r, KEYS), Claims(r, KEYS, "m-worker-0", lease_s=30)
    sent = await queue.submit(job(max_retries=0))
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    await claims.not_completed(claim, Cause.FAILED, JobError(message=words))
    await queue.retry(sent.job_id)
    found = await queue.get(sent.job_id)
    assert found.status is JobStatus.PENDING
    assert words[:100] in [h.reason[: len(words[:100])] for h in found.history]
    await claims.aclose()


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' + b"[" * 5_000, b"\xff\xfe", b"\xed\xa0\x80", b"", b"7"])
async def test_a_damaged_event_ends_no_reader(r: Client, data: bytes) -> None:
    await r.xadd(KEYS.events, {"type": "job_completed", "data": data})
    (event,) = await Events(r, KEYS).recent(10)
    assert event.type == "malformed"
