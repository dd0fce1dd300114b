"""The pub/sub channel `machine:startup:events`: heard, counted, one log line an event."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from emp_orch.store.redis.client import TRANSIENT, Client
from emp_orch.store.redis.damaged import DAMAGED
from emp_orch.store.redis.keys import Keys
from emp_orch.web.limits import MESSAGE_POLL_S, RETRY_FIRST_S, RETRY_MAX_S

log = logging.getLogger(__name__)


def describe(message: str) -> str:
    """`type machine phase` of one machine event, safe for one log line."""
    try:
        data = msgspec.json.decode(message, type=dict[str, Any])
    except DAMAGED:
        return "malformed"
    words = (data.get(k) for k in ("type", "machine_id", "phase", "step", "service", "program"))
    return " ".join(ascii(w)[1:-1][:80] for w in words if isinstance(w, str) and w)


class StartupChannel:
    """`subscribed` says whether the subscription stands; `count` how many events came."""

    def __init__(self, r: Client, keys: Keys) -> None:
        self._r = r
        self._channel = keys.startup_channel
        self.subscribed = False
        self.count = 0

    async def run(self) -> None:
        """Listen for ever, subscribing again whenever Redis comes back."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with self._r.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    while True:
                        message = await channel.get_message(timeout=MESSAGE_POLL_S)
                        delay_s = RETRY_FIRST_S
                        self._note(message)
            except TRANSIENT as e:
                if self.subscribed:
                    log.warning("lost the subscription to %s: %s", self._channel, e)
                self.subscribed = False
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    def _note(self, message: dict[str, Any] | None) -> None:
        if message is None:
            return
        if message["type"] == "subscribe":
            self.subscribed = True
            log.info("subscribed to %s", self._channel)
        elif message["type"] == "message":
            self.count += 1
            log.info("%s", describe(message["data"]))
