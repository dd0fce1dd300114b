"""What one claim costs emp, as lanes and waiting jobs grow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from msgspec import Struct

from bench.queue import emp_peer
from bench.queue.plan import Plan
from bench.queue.server import BenchRedis
from emp_orch.jobs.document.model import Result
from emp_orch.jobs.document.submission import Submission
from emp_orch.jobs.matching.requirements import Requirements
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import client
from emp_orch.store.redis.keys import Keys

WARM = 3
_CAPABILITIES = {**emp_peer.CAPABILITIES, "tier": 100_000}


class Case(Struct, frozen=True, kw_only=True):
    """`backlog` jobs wait in `lanes` lanes, which the worker serves or not; beside them one job that it can run."""

    name: str
    lanes: int
    backlog: int
    served: bool


class ClaimCost(Struct, frozen=True, kw_only=True):
    """Medians of single claims, one after another. `redis_us` is Redis CPU, `client_us` as the worker waits."""

    case: str
    claims: int
    client_us: float
    client_p99_us: float
    redis_us: float
    fill_per_s: float | None


def cases(plan: Plan) -> tuple[Case, ...]:
    n, lanes = plan.backlog, plan.lanes
    return (
        Case(name="1 lane, nothing waits", lanes=1, backlog=0, served=True),
        Case(name=f"{lanes:,} lanes, {n:,} wait, all servable", lanes=lanes, backlog=n, served=True),
        Case(name=f"1 lane, {n:,} wait that it cannot run", lanes=1, backlog=n, served=False),
        Case(name=f"{lanes:,} lanes, {n:,} wait that it cannot run", lanes=lanes, backlog=n, served=False),
    )


def _backlog(case: Case) -> Iterator[Submission]:
    """Jobs over the case's lanes in turn. What they ask is a number that the worker exceeds, or falls short of."""
    for k in range(case.backlog):
        tier = 1 + k % case.lanes if case.served else 1_000_000 + k % case.lanes
        yield emp_peer.submission(k, Requirements(service=emp_peer.SERVICE, positive={"tier": tier}))


async def _fill(queue: Queue, case: Case) -> float | None:
    if not case.backlog:
        return None
    jobs = list(_backlog(case))
    began = time.perf_counter()
    await queue.submit_many(jobs)
    return case.backlog / (time.perf_counter() - began)


async def _claim(claims: Claims) -> Claimed:
    answer = await claims.claim_or_wait(_CAPABILITIES)
    if not isinstance(answer, Claimed):
        raise SystemExit("bench: a claim found nothing although a job waits that its worker can run")
    return answer


async def cost(redis: BenchRedis, case: Case, claims: int) -> ClaimCost:
    """Fill the queue and claim `claims` jobs one by one, each beside a job that was just put in."""
    redis.clear()
    r = client(redis.url)
    try:
        queue = Queue(r, Keys())
        fill = await _fill(queue, case)
        worker = Claims(r, Keys(), "bench-claims", lease_s=emp_peer.LEASE_S)
        took: list[float] = []
        cpu: list[float] = []
        looking: list[float] = []  # what asking Redis for its CPU time costs Redis
        for _ in range(WARM + claims):
            await queue.submit(emp_peer.submission(0))
            first = redis.cpu_s()
            before = redis.cpu_s()
            began = time.perf_counter()
            claim = await _claim(worker)
            took.append((time.perf_counter() - began) * 1e6)
            cpu.append((redis.cpu_s() - before) * 1e6)
            looking.append((before - first) * 1e6)
            await worker.completed(claim, Result())
    finally:
        await r.aclose()
    took = took[WARM:]
    return ClaimCost(
        case=case.name,
        claims=claims,
        client_us=statistics.median(took),
        client_p99_us=sorted(took)[int(len(took) * 0.99)],
        redis_us=max(0.0, statistics.median(cpu[WARM:]) - statistics.median(looking[WARM:])),
        fill_per_s=fill,
    )
