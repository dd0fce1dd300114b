"""A completed job with real outputs in the store of an HTTP stack."""

from __future__ import annotations

from collections.abc import AsyncIterator

from emp_orch.jobs.document.model import Output, Result
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from support.http.stack import Producer, Stack


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def completed(
    stack: Stack, producer: Producer, *outputs: tuple[str, str, bytes], forged: tuple[Output, ...] = ()
) -> str:
    """The id of a completed job with these outputs (name, type, content) in the store."""
    queue = Queue(producer.redis, producer.keys)
    sent = await queue.submit(parse_submission({"service": "simulation"}))
    claims = Claims(producer.redis, producer.keys, "m-worker-0", lease_s=30)
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed) and claim.job.id == sent.job_id
    run = Artifacts(stack.settings.artifacts).run(sent.job_id, "1-test")
    saved = [await run.save(name, kind, chunks_of(data)) for name, kind, data in outputs]
    await claims.completed(claim, Result(outputs=(*saved, *forged)))
    await claims.aclose()
    return sent.job_id
