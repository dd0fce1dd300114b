"""How much of the machine others used meanwhile: figures taken beside others' work say less."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from bench.queue.server import BenchRedis


def _machine_busy_s() -> float | None:
    """CPU seconds that all cores together have worked, by Linux; None elsewhere."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq = (int(x) for x in stat.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Noise:
    """Begins to count when made. Workers must have ended when it is asked: only then is their share known."""

    def __init__(self, redis: BenchRedis) -> None:
        self._redis = redis
        self._began = time.monotonic()
        self._busy, self._own = _machine_busy_s(), self._own_s()

    def _own_s(self) -> float:
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(u.ru_utime + u.ru_stime for u in used) + self._redis.cpu_s()

    def cores(self) -> float | None:
        """Cores that others kept busy on average."""
        busy = _machine_busy_s()
        if busy is None or self._busy is None:
            return None
        others = (busy - self._busy) - (self._own_s() - self._own)
        return max(0.0, others / (time.monotonic() - self._began))
