"""Which operations run, and why others are held: the gate's decision as values and in words."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from msgspec import Struct

from emp_orch.fleet.drift.kinds import Drift, Kind
from emp_orch.fleet.plan.operations import Operation

# What no operation of ours mends.
NEEDS_A_PERSON = frozenset(
    {
        *(Kind.REPORT_MALFORMED, Kind.MACHINE_UNREACHABLE, Kind.MACHINE_FOREIGN, Kind.MACHINE_SURPLUS),
        *(Kind.MACHINE_CONFLICT, Kind.GPU_LOST, Kind.GPU_MISSING, Kind.PROGRAM_PORT_TAKEN, Kind.CONNECTOR_BROKEN),
        *(Kind.MACHINE_AWAY, Kind.SERVICE_SHARED_FOLDERS, Kind.SERVICE_OCCUPIED, Kind.EMP_OUTDATED, Kind.DISK_FULL),
        *(Kind.IMAGE_MOVED, Kind.CONTAINER_LOOPING, Kind.STORE_BROKEN, Kind.ORDERS_FORGED, Kind.REDIS_DAMAGED),
    }
)


class Hold(StrEnum):
    """Which policy holds an operation, in the order they are asked."""

    PAUSE = "pause"
    BREAKER = "breaker"
    QUARANTINE = "quarantine"
    UNKNOWN = "unknown"
    UNDER_WAY = "under way"
    BUSY = "busy"
    RESTING = "resting"
    BACKOFF = "backoff"
    ROLLOUT = "rollout"
    UNAVAILABLE = "max_unavailable"


class Held(Struct, frozen=True, kw_only=True):
    """An operation that does not run now. `next_ms` is when it may, where that is known."""

    operation: Operation
    by: Hold
    why: str
    next_ms: int | None = None


class Decision(Struct, frozen=True, kw_only=True, dict=True):
    run: tuple[Operation, ...]
    held: tuple[Held, ...]

    @cached_property
    def holding(self) -> dict[str, Held]:
        """What is held, by the operation's key."""
        return {h.operation.key: h for h in self.held}


def describe(drift: Drift, operation: Operation | None, decision: Decision) -> tuple[str, str, int | None]:
    """For a drift: the action it leads to, why it is held (if it is), and when it will be tried."""
    if operation is None:
        return "", "needs a person" if drift.kind in NEEDS_A_PERSON else "nothing to do yet", None
    held = decision.holding.get(operation.key)
    return (operation.text, held.why, held.next_ms) if held else (operation.text, "", None)
