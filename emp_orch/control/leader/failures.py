"""Parts of a round that are not worth the round: what fails there is told once, and the rest goes on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TypeVar

from redis.exceptions import RedisError

from emp_orch.control.limits import MAX_ERROR
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.redis.damaged import KeyDamaged
from emp_orch.store.redis.key_errors import is_damage

log = logging.getLogger("reconcile")


T = TypeVar("T")


class Failures:
    """Remembers what failed last, by part."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    async def tolerate(self, work: Awaitable[T], what: str, otherwise: T) -> T:
        """What `work` gives; `otherwise` where it meets something in Redis that is not emp's, or an error that nobody
        foresaw. Raises what redis-py raises when Redis is away, and NotLeader."""
        try:
            found = await work
        except (NotLeader, OSError):
            raise
        except Exception as e:
            if isinstance(e, RedisError) and not is_damage(e):
                raise
            words = e.words if isinstance(e, KeyDamaged) else f"{type(e).__name__}: {e}"[:MAX_ERROR]
            if self._failing.get(what) != words:
                log.warning("%s: %s; the rest goes on", what, words, exc_info=not is_damage(e))
            self._failing[what] = words
            return otherwise
        self._failing.pop(what, None)
        return found
