"""A drift as people see it: with what is done about it, or why nothing is."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.drift.kinds import Drift
from emp_orch.fleet.policy.holds import Hold


class Item(Struct, frozen=True, kw_only=True):
    """A drift with what is done about it. `action` is the operation it leads to, in words, `operation` its key; `held`
    says why there is none now, `hold` which policy says so, `failed` why the last attempt did not do it.
    """

    drift: Drift
    since_ms: int
    action: str
    operation: str = ""
    attempts: int = 0
    last_attempt_ms: int | None = None
    next_attempt_ms: int | None = None
    held: str = ""
    hold: Hold | None = None
    failed: str = ""
