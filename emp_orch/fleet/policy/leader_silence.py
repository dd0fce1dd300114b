"""When a reconciler counts as silent."""

from __future__ import annotations

# It has not ticked for this many of its intervals, and for no less than this.
SILENT_TICKS = 5
SILENT_MIN_MS = 10_000


def is_silent(age_ms: int, interval_ms: int) -> bool:
    """Whether a reconciler that ticks every `interval_ms`, and did so `age_ms` ago, is at work no more."""
    return age_ms > max(SILENT_MIN_MS, SILENT_TICKS * interval_ms)
