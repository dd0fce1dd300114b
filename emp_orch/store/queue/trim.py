"""A bound on the jobs that are kept, held by whoever ends them, so that memory is bounded with no reconciler too."""

from __future__ import annotations

from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.scripts import Scripts

# Ended jobs of each status that are kept at most, unless the fleet keeps more (`Queue.keep_ended`).
MAX_ENDED = 20_000
# Every so many ends of one process, those past that are looked for.
EVERY = 64
AT_ONCE = 4 * EVERY


class Trim:
    """Counts the ends of one process."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._ends: dict[JobStatus, int] = {}

    async def ended(self, status: JobStatus, n: int = 1) -> None:
        """`n` jobs got this status. The first look comes with the first end: many workers live shortly."""
        before = self._ends.get(status, EVERY - 1)
        self._ends[status] = before + n
        if before // EVERY != (before + n) // EVERY:
            await self._scripts.trim(status, MAX_ENDED, AT_ONCE)
