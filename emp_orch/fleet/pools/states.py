"""What one member is at, in a word: for whoever shows it."""

from __future__ import annotations

from emp_orch.fleet.model.fleet import Member, MemberState
from emp_orch.fleet.model.observed import MachineStatus, SeenMachine

READY, STARTING, SILENT, EXPECTED, LEAVING, LEFT = "ready", "starting", "silent", "expected", "leaving", "left"
# In the order in which they are told.
STATES = (READY, STARTING, EXPECTED, LEAVING, SILENT, LEFT)


def state_of(member: Member, seen: SeenMachine | None, *, now_ms: int, stale_after_ms: int) -> str:
    """One of STATES, by what its agent said last."""
    if member.state is MemberState.LEFT:
        return LEFT
    if member.leaving_ms:
        return LEAVING
    if member.state is MemberState.EXPECTED:
        return EXPECTED
    if seen is None or abs(now_ms - seen.seen_ms) > stale_after_ms:
        return SILENT
    return READY if seen.report.status is MachineStatus.READY else STARTING
