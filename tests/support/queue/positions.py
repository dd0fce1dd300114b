"""Where the queue in Redis keeps each job, and its clock: the one place in tests that knows the layout of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emp_orch.jobs.document.states import ENDED, JobStatus
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Every place and the jobs in it, with repetitions if there are any. `by_status`: only what has an index."""

    lanes: Mapping[str, tuple[str, ...]]  # lane → its jobs, first to be given out first; no empty lanes
    leased: tuple[str, ...]
    ended: tuple[str, ...]
    secrets: tuple[str, ...]  # jobs whose secrets are kept
    by_status: Mapping[JobStatus, frozenset[str]]


async def places(r: Client, keys: Keys) -> Places:
    """The places as they are now."""
    every = sorted([key async for key in r.scan_iter(match=keys.prefix + "*", count=1000)])
    lane_keys = [key for key in every if key.startswith(keys.lane(""))]
    secrets = tuple(key.removeprefix(keys.secrets("")) for key in every if key.startswith(keys.secrets("")))
    async with r.pipeline(transaction=True) as pipe:
        for key in lane_keys:
            pipe.zrange(key, 0, -1)
        pipe.zrange(keys.leases, 0, -1)
        for status in sorted(ENDED):
            pipe.zrange(keys.jobs_in(status), 0, -1)
        answer = await pipe.execute()
    rows, (leased, *indices) = answer[: len(lane_keys)], answer[len(lane_keys) :]
    return Places(
        lanes={
            key.removeprefix(keys.lane("")): tuple(member.split(":", 1)[1] for member in members)
            for key, members in zip(lane_keys, rows, strict=True)
        },
        leased=tuple(leased),
        secrets=secrets,
        ended=tuple(job_id for ids in indices for job_id in ids),
        by_status={status: frozenset(ids) for status, ids in zip(sorted(ENDED), indices, strict=True)},
    )


async def age(r: Client, keys: Keys, ms: int) -> None:
    """As if `ms` had passed: leases and the passing over of a worker end so much earlier."""
    async with r.pipeline(transaction=True) as pipe:
        pipe.zrange(keys.leases, 0, -1)
        pipe.hkeys(keys.jobs)
        leased, every = await pipe.execute()
    async with r.pipeline(transaction=True) as pipe:
        for job_id in every:
            pipe.hget(keys.job(job_id), "avoid")
        avoided = dict(zip(every, await pipe.execute(), strict=True))
    async with r.pipeline(transaction=True) as pipe:
        for job_id in leased:
            pipe.zincrby(keys.leases, -ms, job_id)
        for job_id, text in avoided.items():
            if text is not None:
                until_ms, worker_id = text.split(":", 1)
                pipe.hset(keys.job(job_id), "avoid", f"{int(until_ms) - ms}:{worker_id}")
        await pipe.execute()
