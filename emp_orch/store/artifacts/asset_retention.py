"""Deletes assets that nobody needs any more. The leader's work; two at it at once do no harm."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import cast

from emp_orch.jobs.document.inputs import is_digest
from emp_orch.jobs.document.states import ENDED
from emp_orch.store.artifacts.assets import MOVING_MS, Assets, NoSuchAsset
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.queue.reads import JobReads
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script
from emp_orch.store.redis.scripts import Script

# A job is queued within this time of naming its assets.
QUEUED_MS = 600_000
_SCAN = 500
# Digests touched by one command.
_AT_ONCE = 500


class AssetRetention:
    """The retention of one fleet's assets."""

    def __init__(self, store: Artifacts, r: Client, keys: Keys) -> None:
        self._store = store
        self._assets = Assets(store, r, keys)
        self._r = r
        self._keys = keys
        self._reads = JobReads(r, keys)
        self._take = Script(r.execute_command, script("artifacts/take", keys))

    async def expire(self, keep_s: float, now_ms: int) -> int:
        """Delete what was neither given nor named for so long and no unfinished job names; how many."""
        before_ms = now_ms - int(keep_s * 1000)
        old = await self._before(self._keys.assets, before_ms)
        needed = await self._needed(now_ms) if old else set()
        taken = [a for a in old if a not in needed and await self._take(a, before_ms)]
        # Whoever was at one of the others is gone; its file may be there or not, and nobody may name it.
        left = await self._before(self._keys.assets_moving, now_ms - MOVING_MS)
        for asset in dict.fromkeys([*taken, *left]):
            await self._delete(asset)
        return len(taken)

    async def _before(self, key: str, ms: int) -> list[str]:
        return cast(list[str], await self._r.zrangebyscore(key, "-inf", f"({ms}"))

    async def _needed(self, now_ms: int) -> set[str]:
        """The assets that unfinished jobs name; they count as named now, and who has gone is forgotten."""
        needed: set[str] = set()
        async for rows in self._naming():
            statuses = await self._reads.statuses(list(rows))
            gone = []
            for job_id, text in rows.items():
                since, *assets = text.split(" ")
                status = statuses.get(job_id)
                if status is None and not (since.isdecimal() and now_ms - int(since) < QUEUED_MS):
                    gone.append(job_id)
                elif status not in ENDED:
                    needed.update(a for a in assets if is_digest(a))
            if gone:
                await self._r.hdel(self._keys.jobs_inputs, *gone)
        listed = sorted(needed)
        for at in range(0, len(listed), _AT_ONCE):
            part = dict.fromkeys(listed[at : at + _AT_ONCE], now_ms)
            await self._r.zadd(self._keys.assets, part, xx=True)
        return needed

    async def _naming(self) -> AsyncIterator[Mapping[str, str]]:
        cursor = 0
        while True:
            cursor, rows = await self._r.hscan(self._keys.jobs_inputs, cursor, count=_SCAN)
            if rows:
                yield cast(dict[str, str], rows)
            if cursor == 0:
                return

    async def _delete(self, asset: str) -> None:
        """Delete the file of an asset that nobody may name any more; tried again later when the store is away."""
        try:
            if is_digest(asset):
                await self._store.through(self._store.remove, self._assets.path(asset))
        except (NoSuchAsset, FileNotFoundError):
            pass
        except Exception as e:
            raise self._store.cannot_store(e, f"{asset} was not deleted") from e
        await self._r.zrem(self._keys.assets_moving, asset)
