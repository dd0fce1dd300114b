"""The breaker: when many machines that were in order fail together, emp stops acting by itself and says so.

It closes when most of them are well again, or when a person says so. Until then a few machines are tried at a time:
one each `breaker_probe`, and twice as many after each success.
"""

from __future__ import annotations

from math import ceil

from msgspec import structs

from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.members import awaited
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.policy.memory import Breaker, Memory

# Fewer than these fail together by chance.
AT_LEAST = 3

FAILURES = frozenset(
    {
        Kind.MACHINE_MISSING,
        Kind.MACHINE_STALE,
        Kind.CONTAINER_LOOPING,
        Kind.PROGRAM_FATAL,
        Kind.PROGRAM_FLAPPING,
        Kind.PROGRAM_UNHEALTHY,
        Kind.WORKER_MISSING,
        Kind.WORKER_STALE,
    }
)


def failed_machines(drifts: tuple[Drift, ...], desired: Desired, memory: Memory) -> dict[MachineId, int]:
    """Machines that were in order once and have failed, and since when."""
    failed: dict[MachineId, int] = {}
    unproven = memory.unproven or frozenset()
    for drift in drifts:
        if drift.kind in FAILURES and drift.machine_id not in unproven and drift.machine_id in desired.machines:
            since_ms = memory.onsets[drift.key].since_ms
            failed[drift.machine_id] = min(since_ms, failed.get(drift.machine_id, since_ms))
    return failed


def counted(drifts: tuple[Drift, ...], desired: Desired) -> int:
    """The machines that a share is taken of: members of pools that are not there are none."""
    absent = awaited(desired, drifts)
    return len(desired.machines) - sum(i in desired.machines for i in absent)


def threshold(desired: Desired, count: int) -> int:
    """How many machines of `count` must fail for the breaker to open."""
    return max(AT_LEAST, ceil(desired.limits.breaker_share * count))


def step(drifts: tuple[Drift, ...], desired: Desired, memory: Memory, now_ms: int) -> Breaker:
    """The breaker after this look."""
    breaker, limits, count = memory.breaker, desired.limits, counted(drifts, desired)
    failed = {i: at for i, at in failed_machines(drifts, desired, memory).items() if at >= breaker.forgiven_ms}
    if breaker.open_since_ms is None:
        lately = [i for i, at in failed.items() if now_ms - at <= limits.breaker_window_ms]
        if len(lately) < threshold(desired, count):
            return breaker
        reason = f"{len(lately)} of {count} machines failed within {limits.breaker_window_ms // 1000} s"
        return Breaker(open_since_ms=now_ms, reason=reason, forgiven_ms=breaker.forgiven_ms, trial_ms=now_ms)
    if 2 * len(failed) < threshold(desired, count):
        return Breaker(forgiven_ms=breaker.forgiven_ms)
    return _trial(breaker, set(failed), desired, now_ms)


def _trial(breaker: Breaker, failed: set[MachineId], desired: Desired, now_ms: int) -> Breaker:
    """Which machines may be tried now: the next ones when all of the last are well, or when their time is over."""
    well = bool(breaker.trial) and not failed & set(breaker.trial)
    over = now_ms - breaker.trial_ms >= desired.limits.breaker_probe_ms
    if not well and not over:
        return breaker
    width = 2 * breaker.width if well else 1
    # After a failure others get their turn.
    waiting = sorted(failed, key=lambda i: (i in breaker.trial, desired.ranks[i]))
    return structs.replace(breaker, width=width, trial=tuple(waiting[:width]), trial_ms=now_ms)


def reset(now_ms: int) -> Breaker:
    """A person's word: what has failed so far counts no more."""
    return Breaker(forgiven_ms=now_ms)
