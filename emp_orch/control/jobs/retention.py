"""Forgets ended jobs past their number or age, and deletes the artifacts of forgotten jobs and assets nobody needs."""

from __future__ import annotations

import logging
from typing import cast

from emp_orch.fleet.model.fleet import InputsSpec, JobsSpec
from emp_orch.jobs.document.states import ENDED
from emp_orch.store.artifacts.asset_retention import AssetRetention
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.artifacts.url import CannotStore
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")

EVERY_MS = 10_000
# Assets are kept for a minute at least; where some are old, every job with inputs is looked at.
ASSETS_EVERY_MS = 30_000
# To find those past their age every ended job is looked at: once in a hundredth of that age, but at least this often.
AGE_EVERY_MS = 600_000
AT_ONCE = 20


class Retention:
    """One look every ten seconds; deletes a few folders at a time."""

    def __init__(self, r: Client, keys: Keys, queue: Queue, artifacts: Artifacts) -> None:
        self._r = r
        self._keys = keys
        self._queue = queue
        self._artifacts = artifacts
        self._assets = AssetRetention(artifacts, r, keys)
        self._next_ms = 0
        self._assets_next_ms = 0
        self._age_s = 0.0
        self._age_next_ms = 0

    async def tend(self, jobs: JobsSpec, now_ms: int) -> None:
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + EVERY_MS
        statuses = sorted(ENDED)
        await self._queue.keep_ended(jobs.keep_count)  # each time: Redis may have lost it
        gone = await self._queue.purge(statuses, keep=jobs.keep_count)
        if now_ms >= self._age_next_ms or jobs.keep_age_s != self._age_s:
            self._age_s = jobs.keep_age_s
            self._age_next_ms = now_ms + min(int(jobs.keep_age_s * 10), AGE_EVERY_MS)
            gone += await self._queue.purge(statuses, older_than_s=jobs.keep_age_s)
        if gone:
            log.info("forgot %d jobs that ended", gone)

    async def expire_assets(self, inputs: InputsSpec | None, now_ms: int) -> None:
        """Delete the assets that nobody needs any more, now and then."""
        if inputs is None or now_ms < self._assets_next_ms:
            return
        self._assets_next_ms = now_ms + ASSETS_EVERY_MS
        try:
            if gone := await self._assets.expire(inputs.keep_s, now_ms):
                log.info("removed %d uploaded files that no job needed any more", gone)
        except CannotStore as e:
            log.warning("assets: %s", e.message)

    async def delete_artifacts(self) -> None:
        """Delete what was forgotten up to now. Crash-safe: a job leaves the list after its folder.

        What cannot be deleted now goes to the end of the list: it keeps nothing else from being deleted.
        """
        forgotten = self._keys.jobs_forgotten
        left = await self._r.llen(forgotten)
        while left > 0 and (ids := cast(list[str], await self._r.lrange(forgotten, 0, min(left, AT_ONCE) - 1))):
            left -= len(ids)
            failed = [(i, e) for i in ids if (e := await self._delete(i)) is not None]
            async with self._r.pipeline(transaction=True) as pipe:
                # By name, for another reconciler may do the same: what it took away is not ours to count.
                for job_id in ids:
                    pipe.lrem(forgotten, 1, job_id)
                for job_id, e in failed:
                    if e.retryable:
                        pipe.rpush(forgotten, job_id)
                await pipe.execute()
            for job_id, e in failed:
                log.warning("artifacts of job %s: %s", job_id, e.message)
            if len(failed) == len(ids):
                return  # the store is away, most likely

    async def _delete(self, job_id: str) -> CannotStore | None:
        """Why its folder cannot be deleted; None when it was."""
        if await self._r.hexists(self._keys.jobs, job_id):
            # Submitted again under the same id: the folder is in use, and goes with that one.
            await self._r.sadd(self._keys.jobs_files, job_id)
            return None
        try:
            await self._artifacts.delete(job_id)
        except CannotStore as e:
            return e
        return None
