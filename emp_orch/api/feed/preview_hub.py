"""Previews of running jobs: heard from Redis while somebody looks at the job, and given to all who do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from redis.asyncio.client import PubSub

from emp_orch.jobs.document.preview import Preview
from emp_orch.store.artifacts.previews import read
from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.keys import Keys
from emp_orch.web.errors import Refused
from emp_orch.web.limits import MESSAGE_POLL_S

log = logging.getLogger(__name__)

# Who asks for picture after picture is still there between two of them.
LINGER_S = 5.0
MAX_JOBS = 100
RETRY_S = 1.0


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
    """One subscription for all jobs that somebody looks at, and for a moment after that."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._keys = keys
        self._feeds: dict[str, Feed] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Feed]:
        """The job's pictures while somebody looks. Raises Refused when too many jobs are looked at."""
        channel = self._keys.preview_channel(job_id)
        feed = self._feeds.get(channel)
        if feed is None:
            if len(self._feeds) >= MAX_JOBS:
                raise Refused(503, f"previews of {MAX_JOBS} jobs are looked at already", hint="try again later")
            feed = self._feeds[channel] = Feed()
            self._changed.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._hear(), name="previews")
        feed.watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                asyncio.get_running_loop().call_later(LINGER_S, self._leave, channel, feed)

    def _leave(self, channel: str, feed: Feed) -> None:
        if not feed.watchers and self._feeds.get(channel) is feed:
            del self._feeds[channel]
            self._changed.set()

    async def _hear(self) -> None:
        while self._feeds:
            try:
                await self._subscribed()
            except TRANSIENT as e:
                log.debug("lost the previews: %s", e)
                await asyncio.sleep(RETRY_S)

    async def _subscribed(self) -> None:
        """Hear all that are looked at; return when none is."""
        heard: set[str] = set()
        tasks: dict[str, asyncio.Task[Any]] = {}
        async with self._r.pubsub() as channel:
            try:
                while self._feeds:
                    self._changed.clear()
                    if new := self._feeds.keys() - heard:
                        await channel.subscribe(*new)
                    if old := heard - self._feeds.keys():
                        await channel.unsubscribe(*old)
                    heard = set(self._feeds)
                    for name, wait in (("said", partial(_message, channel)), ("changed", self._changed.wait)):
                        if name not in tasks:
                            tasks[name] = asyncio.create_task(wait(), name=f"previews {name}")
                    await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                    for name in [name for name, task in tasks.items() if task.done()]:
                        answer = tasks.pop(name).result()
                        if name == "said":
                            self._put(answer)
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _put(self, message: dict[str, Any] | None) -> None:
        feed = None if message is None else self._feeds.get(message["channel"])
        if message is not None and feed is not None and (preview := read(message["data"])) is not None:
            feed.put(preview)

    async def aclose(self) -> None:
        self._feeds.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _message(channel: PubSub) -> dict[str, Any] | None:
    found: dict[str, Any] | None = await channel.get_message(ignore_subscribe_messages=True, timeout=MESSAGE_POLL_S)
    return found
