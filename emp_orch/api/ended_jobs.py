"""Jobs that have ended and were read a moment ago: who is told of an end asks for its outputs next, often for several.

An end changes no more, but by a retry or a purge, of which another API may be asked: so a job is kept for a second.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from emp_orch.jobs.document.model import Job
from emp_orch.jobs.document.states import ENDED

KEPT_S = 1.0
MAX_KEPT = 256


class EndedJobs:
    """The latest MAX_KEPT of them."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[float, Job]] = OrderedDict()

    def keep(self, job: Job) -> None:
        """Keep `job` as it was read just now, if it has ended."""
        if job.status not in ENDED:
            return
        self._kept[job.id] = (monotonic(), job)
        self._kept.move_to_end(job.id)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def get(self, job_id: str) -> Job | None:
        """The job, if it was read within the last second."""
        read_at, job = self._kept.get(job_id, (0.0, None))
        return job if monotonic() - read_at < KEPT_S else None

    def drop(self, job_id: str | None = None) -> None:
        """Forget one, or all: it is not so any more."""
        if job_id is None:
            self._kept.clear()
        else:
            self._kept.pop(job_id, None)
