"""Keeps the snapshot of the state, and pushes what changed to live clients, at most ten times a second.

Events wake it early; once a second it looks anyhow, because silence (a machine gone quiet) sends no event. While no
live client listens it rests, and looks when somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import NamedTuple

from emp_orch.api.feed.changes import Follower
from emp_orch.api.feed.frames import Batch, Frame, Large
from emp_orch.api.feed.gzipped import Text
from emp_orch.api.feed.hub import Hub
from emp_orch.api.feed.snapshot import Snapshot
from emp_orch.api.views.fleet import ReconcilerView
from emp_orch.store.redis.client import TRANSIENT
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

SPACING_S = 0.1
# Of a fleet that is looked at for long, no more than a quarter of the time is spent looking. One long look alone, as
# the reading of everything each minute, keeps nobody waiting after it.
REST_PER_LOOK = 3
LOOK_S = 1.0
ANSWER_S = 3.0
HEARTBEAT_S = 1.4
# A snapshot is followed by the deltas since it was made, up to so many bytes: who joins while much changes is given
# what those before were given, and not a large text of its own.
FOLLOWING_BYTES = 256 * 1024
# No snapshot is given out that is older: a client may show it before it has taken what follows.
SNAPSHOT_S = 1.0

HEARTBEAT = "heartbeat"
SNAPSHOT = "full_state_snapshot"
DELTA = "delta"


class _Told(NamedTuple):
    """A snapshot as it was told, and when: for clients, and by our own clock."""

    revision: int
    timestamp: str
    at_s: float
    text: Text


class LiveState:
    """One look at a time, whoever asks for it, and what it finds goes to everybody."""

    def __init__(self, hub: Hub, follower: Follower) -> None:
        self._hub = hub
        self._follower = follower
        self._snapshot = Snapshot()
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended: tuple[int, BaseException | None] = (0, None)
        # The last snapshot, and what was told since.
        self._told: _Told | None = None
        # When the last look began, for clients, and by our own clock.
        self._looked = (0, 0.0)
        self._since: list[Frame] = []
        self._since_bytes = 0
        self._beat_at_s = 0.0
        self._redis_ok = False
        self._reconciler: ReconcilerView | None = None

    @property
    def revision(self) -> int:
        return self._snapshot.revision

    async def run(self) -> None:
        """Look for ever while there are live clients."""
        again = False
        before_s = 0.0
        while True:
            stirred = await self._stirred(SPACING_S if again else LOOK_S)
            if not self._hub.has_live_clients:
                self._hub.release()
                again = False
                await asyncio.sleep(SPACING_S)  # not awake at each event for nobody
                continue
            began_s = monotonic()
            await self._look_and_beat()
            # Some speak of a change before they write it down: look once more soon after.
            again = stirred
            took_s = monotonic() - began_s
            await asyncio.sleep(max(SPACING_S, REST_PER_LOOK * min(took_s, before_s)))
            before_s = took_s

    async def _stirred(self, within_s: float) -> bool:
        """Whether something came, at the latest when it is time to look or to beat."""
        due_s = self._beat_at_s + HEARTBEAT_S - monotonic() if self._hub.has_live_clients else within_s
        try:
            async with asyncio.timeout(max(0.0, min(within_s, due_s))):
                await self._hub.changed.wait()
        except TimeoutError:
            return False
        self._hub.changed.clear()
        return True

    async def _look_and_beat(self) -> None:
        was_ok = self._redis_ok
        try:
            await self.fresh()
        except (*TRANSIENT, TimeoutError) as e:
            if was_ok:
                log.warning("cannot read the state: %s", e or type(e).__name__)
        if monotonic() - self._beat_at_s >= HEARTBEAT_S * 0.9 or was_ok != self._redis_ok:
            self._hub.release(self._heartbeat())
        else:
            self._hub.release()

    def _heartbeat(self) -> Frame:
        self._beat_at_s = monotonic()
        data = {
            "timestamp": rfc3339(now_ms()),
            "revision": self.revision,
            "redis": self._redis_ok,
            "reconciler": self._reconciler if self._redis_ok else None,
        }
        return Frame(HEARTBEAT, data)

    async def fresh(self, *, whole: bool = False) -> None:
        """Return after a look that began after this call; those who call meanwhile share one.

        `whole`: of everything, unless that was just done. Raises what redis-py raises when Redis is away, and
        TimeoutError when it says nothing.
        """
        asked = self._begun
        async with self._lock:
            number, failed = self._ended
            if number > asked:
                if failed is not None:
                    raise failed
                return
            self._begun += 1
            number = self._begun
            try:
                await self._look(whole=whole)
            except Exception as e:
                self._redis_ok = False
                self._follower.lost()
                self._ended = (number, e)
                raise
            self._ended = (number, None)

    async def _look(self, *, whole: bool) -> None:
        # A Redis that accepts but does not answer must not keep the heartbeat back.
        began = now_ms(), monotonic()
        async with asyncio.timeout(ANSWER_S):
            seen = await self._follower.look(whole=whole)
        self._redis_ok = True
        self._looked = began
        if seen.system_stats is not None:
            self._reconciler = seen.system_stats.reconciler
        delta = self._snapshot.take(seen, rfc3339(now_ms()))
        if delta is not None:
            frame = Frame(DELTA, delta)
            self._keep(frame)
            self._hub.release(frame)

    def _keep(self, delta: Frame) -> None:
        """Behind the text of the last snapshot, while that is worth it."""
        if self._told is None:
            return
        self._since.append(delta)
        self._since_bytes += len(delta.data)
        if self._since_bytes > FOLLOWING_BYTES or not self._hub.has_live_clients:
            self._told = None
            self._since = []

    def snapshot(self, position: str, *, live: bool) -> Batch:
        """The state as of the last look: a snapshot with the id to go on from, and for `live` clients the deltas that
        follow it. `timestamp` is the time that the snapshot itself tells of."""
        told = self._told
        if told is None or (self._since and not live) or monotonic() - told.at_s > SNAPSHOT_S:
            whole = Text(self._snapshot.whole())
            at_ms, at_s = self._looked
            told = self._told = _Told(self.revision, rfc3339(at_ms), at_s, whole)
            self._since, self._since_bytes = [], 0
        head = b'{"revision":%d,"timestamp":"%b","data":' % (told.revision, told.timestamp.encode())
        return Batch([Large(SNAPSHOT, head, told.text, b"}", position or None), *self._since])

    def state(self) -> bytes:
        """`State` as of the last look, encoded."""
        return self._snapshot.whole()
