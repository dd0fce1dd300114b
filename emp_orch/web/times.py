"""Times as emp's HTTP interfaces write them: RFC 3339, UTC, milliseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from emp_orch.units import MAX_MS


def rfc3339(ms: int) -> str:
    """`ms` since the epoch as `2025-01-31T12:00:00.000Z`; what is no time at all, as the nearest that is one."""
    ms = max(0, min(ms, MAX_MS))
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now_ms() -> int:
    """This host's clock: for timestamps of answers, never for judging liveness."""
    return time.time_ns() // 1_000_000
