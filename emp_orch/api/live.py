"""Pushes the state to live clients: when something changed, at most four times a second.

Events wake it early; once a second it looks anyhow, because silence (a machine gone quiet) sends no event.
"""

from __future__ import annotations

import asyncio
import logging

from emp_orch.api.hub import Frame, Hub
from emp_orch.api.state import StateReader
from emp_orch.api.views import State, stable
from emp_orch.store.connect import TRANSIENT
from emp_orch.web.times import now_ms, rfc3339

log = logging.getLogger(__name__)

SPACING_S = 0.25
LOOK_S = 1.0
HEARTBEAT_MS = 1_500

HEARTBEAT = "heartbeat"


class LiveState:
    """`revision` rises with every state that differs from the one before."""

    def __init__(self, hub: Hub, reader: StateReader) -> None:
        self._hub = hub
        self._reader = reader
        self.revision = 0
        self._last = b""
        self._heartbeat_ms = 0
        self._redis_ok = False

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._hub.changed.wait()
            except TimeoutError:
                pass
            self._hub.changed.clear()
            if self._hub.has_live_clients:
                await self._look()
            await asyncio.sleep(SPACING_S)

    async def _look(self) -> None:
        state: State | None = None
        was_ok = self._redis_ok
        try:
            # A Redis that accepts but does not answer must not keep the heartbeat back.
            async with asyncio.timeout(LOOK_S * 3):
                state = await self._reader.read()
        except (*TRANSIENT, TimeoutError) as e:
            if was_ok:
                log.warning("cannot read the state: %s", e)
        self._redis_ok = state is not None
        if state is not None:
            self._publish(state)
        if now_ms() - self._heartbeat_ms >= HEARTBEAT_MS or was_ok != self._redis_ok:
            self._beat(state)

    def _publish(self, state: State) -> None:
        now = stable(state)
        if now == self._last:
            return
        self._last = now
        self.revision += 1
        self._hub.broadcast(Frame("state", self.document(state)), live_only=True)

    def _beat(self, state: State | None) -> None:
        self._heartbeat_ms = now_ms()
        data = {
            "timestamp": rfc3339(self._heartbeat_ms),
            "revision": self.revision,
            "redis": state is not None,
            "reconciler": state.system_stats.reconciler if state else None,
        }
        self._hub.broadcast(Frame(HEARTBEAT, data), live_only=True)

    def document(self, state: State) -> dict[str, object]:
        """What `full_state_snapshot` and `state` carry."""
        return {"revision": self.revision, "timestamp": rfc3339(now_ms()), "data": state}
