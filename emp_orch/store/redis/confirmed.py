"""What must not be lost in a failover is answered when replicas have it: `redis.replicas`.

WAIT goes out behind the script, over the same connection. It bounds what an asynchronous failover loses; it does not
make Redis a system that agrees: a sentinel may elect a replica that was not asked.
Source: https://redis.io/docs/latest/commands/wait/.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions as rexc

log = logging.getLogger(__name__)

# Replicas answer within milliseconds. Where one did not, others are not kept waiting on the same connection.
WAIT_MS, HURRIED_MS = 1_000, 20


class NotConfirmed(rexc.RedisError):
    """Redis did what was asked, and fewer replicas than wanted have it. `says` follows "Redis at …"."""

    def __init__(self, wanted: int, have: int) -> None:
        self.says = (
            f"took it, but {have} of {wanted} replicas confirmed that "
            "(redis.replicas): it stands, unless Redis fails over now"
        )
        self.hint = "look whether its replicas follow; send only jobs with ids of their own again"
        super().__init__(self.says)


class Confirmed:
    """Sends one command, as `calls` does; the answer comes when `replicas` have what it wrote.

    `strict`: raises NotConfirmed; else it is only logged, for what is found out and done again anyway.
    """

    def __init__(self, calls: Callable[..., Awaitable[list[Any]]], replicas: int, *, strict: bool) -> None:
        self._calls = calls
        self._replicas = replicas
        self._strict = strict
        self._in_time = True

    async def __call__(self, *command: Any) -> Any:
        patience_ms = WAIT_MS if self._in_time else HURRIED_MS
        answer, have = await self._calls(command, ("WAIT", self._replicas, patience_ms))
        late = int(have) < self._replicas
        if late and self._in_time:
            log.warning("%d of %d replicas have what was written (redis.replicas)", have, self._replicas)
        self._in_time = not late
        if late and self._strict:
            raise NotConfirmed(self._replicas, int(have))
        return answer
