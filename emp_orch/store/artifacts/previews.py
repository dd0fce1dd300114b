"""Previews on their way from a worker to whoever looks: one pub/sub channel a job, so that Redis keeps none of them."""

from __future__ import annotations

import msgspec

from emp_orch.jobs.document.preview import Preview, is_shown
from emp_orch.store.redis.client import Client, within
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys


class Previews:
    """Raises what redis-py raises when Redis is away."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys

    def channel(self, job_id: str) -> str:
        return self._keys.preview_channel(job_id)

    async def watchers(self, job_id: str) -> int:
        """How many look at this job now."""
        async with within():
            rows = await self._r.pubsub_numsub(self.channel(job_id))
        return int(rows[0][1]) if rows else 0

    async def publish(self, job_id: str, preview: Preview) -> None:
        async with within():
            await self._r.publish(self.channel(job_id), msgspec.json.encode(preview))


def read(message: str | bytes) -> Preview | None:
    """The preview that came; None for what is none, or is not to be shown."""
    try:
        found = msgspec.json.decode(message, type=Preview)
    except DAMAGED:
        return None
    return found if is_shown(found) else None
