"""What a worker takes for a Redis that does not serve it now."""

from __future__ import annotations

from redis.exceptions import RedisError

# Redis that is away, restarting, full or refusing: the worker goes on and tries again.
AWAY = (RedisError, OSError)
