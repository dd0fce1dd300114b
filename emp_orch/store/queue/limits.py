"""The queue's limits: its scripts are given them by these names."""

from __future__ import annotations

from emp_orch.store.fleet.events import MAX_EVENTS

# A woken worker that does not claim within this time is taken for dead, and its wake passed on.
WAKE_ANSWER_MS = 2_000
# A waiting worker is taken for dead when it has not come back this long after its wait was to end.
WAIT_GRACE_MS = 3_000
WAKE_KEPT_MS = 60_000
# A lane that is empty and got no job for so long is forgotten.
LANE_KEPT_MS = 3_600_000
# What a class knows is forgotten when no worker of it waited for so long; the next one matches the lanes again.
CLASS_KEPT_MS = 3_600_000
# How far into a lane a claim looks past jobs that this worker is to avoid.
AVOID_SCAN = 16
# Progress messages kept for each job.
MAX_PROGRESS = 200
# A history past this many characters loses its oldest entries.
MAX_HISTORY = 20_000
# Of each model the workers that ran it last, so many, and for so long.
MAX_WARM = 8
WARM_KEPT_MS = 3_600_000


def limits() -> dict[str, int]:
    """All of them, as they are now, and how many events are kept."""
    return {
        "MAX_EVENTS": MAX_EVENTS,
        "WAKE_ANSWER_MS": WAKE_ANSWER_MS,
        "WAIT_GRACE_MS": WAIT_GRACE_MS,
        "WAKE_KEPT_MS": WAKE_KEPT_MS,
        "LANE_KEPT_MS": LANE_KEPT_MS,
        "CLASS_KEPT_MS": CLASS_KEPT_MS,
        "AVOID_SCAN": AVOID_SCAN,
        "MAX_PROGRESS": MAX_PROGRESS,
        "MAX_HISTORY": MAX_HISTORY,
        "MAX_WARM": MAX_WARM,
        "WARM_KEPT_MS": WARM_KEPT_MS,
    }
