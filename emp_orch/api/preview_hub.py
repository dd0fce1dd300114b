"""Previews of running jobs: heard from Redis while somebody looks at the job, and given to all who do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from emp_orch.jobs.preview import Preview
from emp_orch.store.connect import TRANSIENT, Client
from emp_orch.store.keys import Keys
from emp_orch.store.previews import read
from emp_orch.web.errors import Refused

log = logging.getLogger(__name__)

# Who asks for picture after picture is still there between two of them.
LINGER_S = 5.0
# Each is a connection to Redis.
MAX_JOBS = 100
RETRY_S = 1.0
POLL_S = 10.0


class Feed:
    """The pictures of one job, as they come. `number` counts them."""

    def __init__(self) -> None:
        self.number = 0
        self.latest: Preview | None = None
        self.watchers = 0
        self._came = asyncio.Event()

    def put(self, preview: Preview) -> None:
        self.number += 1
        self.latest = preview
        self._came.set()
        self._came = asyncio.Event()

    async def after(self, number: int) -> tuple[int, Preview]:
        """The latest, once it is a later one than `number`."""
        while self.latest is None or self.number <= number:
            await self._came.wait()
        return self.number, self.latest


class PreviewHub:
    """One subscription for each job that somebody looks at, and for a moment after that."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._feeds: dict[str, Feed] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Feed]:
        """The job's pictures while somebody looks. Raises Refused when too many jobs are looked at."""
        feed = self._feeds.get(job_id)
        if feed is None:
            if len(self._feeds) >= MAX_JOBS:
                raise Refused(503, f"previews of {MAX_JOBS} jobs are looked at already", hint="try again later")
            feed = self._feeds[job_id] = Feed()
            self._tasks[job_id] = asyncio.create_task(self._hear(job_id, feed), name=f"previews of {job_id}")
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                asyncio.get_running_loop().call_later(LINGER_S, self._leave, job_id, feed)

    def _leave(self, job_id: str, feed: Feed) -> None:
        if not feed.watchers and self._feeds.get(job_id) is feed:
            del self._feeds[job_id]
            self._tasks[job_id].cancel()

    async def _hear(self, job_id: str, feed: Feed) -> None:
        try:
            while True:
                try:
                    await self._subscribed(self._keys.preview_channel(job_id), feed)
                except TRANSIENT as e:
                    log.debug("lost the previews of %s: %s", job_id, e)
                await asyncio.sleep(RETRY_S)
        finally:
            if self._tasks.get(job_id) is asyncio.current_task():
                del self._tasks[job_id]

    async def _subscribed(self, channel: str, feed: Feed) -> None:
        async with self._r.pubsub() as heard:
            await heard.subscribe(channel)
            while True:
                message = await heard.get_message(ignore_subscribe_messages=True, timeout=POLL_S)
                if message is not None and (preview := read(message["data"])) is not None:
                    feed.put(preview)

    async def aclose(self) -> None:
        tasks = list(self._tasks.values())
        self._feeds.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
