"""Which operations of a plan may run now: backoff, operations under way, and the budget of disrupted machines.

Memory is a value: `gate` reads it, `tried` and `settled` return the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from emp_orch.fleet.drift import Desired, Drift
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import MachineStatus, Observed
from emp_orch.fleet.plan import Operation, Verb

BACKOFF_BASE_MS = 2_000
BACKOFF_CAP_MS = 60_000
# An operation that was not needed for so long has healed: its attempts are forgotten.
RESET_AFTER_MS = 60_000
# A command that was not acknowledged in this time is taken for lost. Longer than a drain.
IN_FLIGHT_MS = 120_000


class Attempt(Struct, frozen=True, kw_only=True):
    """How often an operation was tried. `in_flight_since_ms` is None once its outcome is known."""

    count: int
    last_ms: int
    in_flight_since_ms: int | None


Memory = Mapping[str, Attempt]


class Held(Struct, frozen=True, kw_only=True):
    """An operation that does not run now. `next_ms` is when it may, where that is known."""

    operation: Operation
    why: str
    next_ms: int | None


class Decision(Struct, frozen=True, kw_only=True):
    run: tuple[Operation, ...]
    held: tuple[Held, ...]


def backoff_ms(count: int, jitter: float) -> int:
    """The pause after attempt number `count` (1, 2, …): doubling to a cap, less up to a tenth by `jitter` (0 … 1)."""
    pause = min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** (max(1, count) - 1))
    return int(pause * (1 - 0.1 * jitter))


def next_attempt_ms(attempt: Attempt, jitter: float) -> int:
    return attempt.last_ms + backoff_ms(attempt.count, jitter)


def gate(
    operations: tuple[Operation, ...],
    desired: Desired,
    observed: Observed,
    memory: Memory,
    *,
    paused: str,
    jitter: float,
) -> Decision:
    """Split the plan into what runs now and what is held, each with its reason."""
    run: list[Operation] = []
    held: list[Held] = []
    budget = desired.max_unavailable - len(_moving(desired, observed))
    disrupted: set[MachineId] = set()
    for operation in operations:
        hold = _hold(operation, observed.now_ms, memory, paused, jitter)
        if hold is None and _disrupts(operation, observed) and operation.machine_id not in disrupted:
            if budget <= len(disrupted):
                hold = Held(operation=operation, why="max_unavailable machines are already disrupted", next_ms=None)
            else:
                disrupted.add(operation.machine_id)
        if hold is None:
            run.append(operation)
        else:
            held.append(hold)
    return Decision(run=tuple(run), held=tuple(held))


def _hold(operation: Operation, now_ms: int, memory: Memory, paused: str, jitter: float) -> Held | None:
    if paused:
        return Held(operation=operation, why=f"paused: {paused}", next_ms=None)
    if _machine_in_hand(operation, now_ms, memory):
        return Held(operation=operation, why="its machine is being started, stopped or configured", next_ms=None)
    attempt = memory.get(operation.key)
    if attempt is None:
        return None
    since = attempt.in_flight_since_ms
    if since is not None and now_ms - since < IN_FLIGHT_MS:
        return Held(operation=operation, why="under way", next_ms=None)
    next_ms = next_attempt_ms(attempt, jitter)
    if now_ms < next_ms:
        return Held(operation=operation, why=f"backoff after {attempt.count} attempts", next_ms=next_ms)
    return None


_WHOLE = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE, Verb.SEND_CONFIG)


def _machine_in_hand(operation: Operation, now_ms: int, memory: Memory) -> bool:
    """Whether another operation on the whole machine is under way: then nothing inside it is touched."""
    for verb in _WHOLE:
        whole = Operation(verb=verb, machine_id=operation.machine_id, cause="", origin="")
        attempt = memory.get(whole.key)
        if (
            whole.key != operation.key
            and attempt is not None
            and attempt.in_flight_since_ms is not None
            and now_ms - attempt.in_flight_since_ms < IN_FLIGHT_MS
        ):
            return True
    return False


def _moving(desired: Desired, observed: Observed) -> set[MachineId]:
    """Desired machines on their way to ready. One that has settled with an error does not hold up the others."""
    return {
        machine_id
        for machine_id in desired.machines
        if (seen := observed.machines.get(machine_id)) is not None
        and seen.report.status is not MachineStatus.READY
        and not seen.report.error
    }


def _disrupts(operation: Operation, observed: Observed) -> bool:
    """Whether the operation takes something from a machine that is ready now."""
    if operation.verb not in (Verb.RESTART_MACHINE, Verb.SEND_CONFIG):
        return False
    seen = observed.machines.get(operation.machine_id)
    return seen is not None and seen.report.status is MachineStatus.READY


def tried(memory: Memory, operation: Operation, now_ms: int) -> dict[str, Attempt]:
    """Memory after `operation` was begun."""
    before = memory.get(operation.key)
    count = 1 if before is None else before.count + 1
    return {**memory, operation.key: Attempt(count=count, last_ms=now_ms, in_flight_since_ms=now_ms)}


def ended(memory: Memory, key: str) -> dict[str, Attempt]:
    """Memory after the outcome of operation `key` is known."""
    before = memory.get(key)
    if before is None:
        return dict(memory)
    return {**memory, key: Attempt(count=before.count, last_ms=before.last_ms, in_flight_since_ms=None)}


def settled(memory: Memory, operations: tuple[Operation, ...], now_ms: int) -> dict[str, Attempt]:
    """Memory without the operations that have not been needed for RESET_AFTER_MS."""
    needed = {o.key for o in operations}
    return {
        key: attempt
        for key, attempt in memory.items()
        if key in needed or attempt.in_flight_since_ms is not None or now_ms - attempt.last_ms < RESET_AFTER_MS
    }


def describe(drift: Drift, operation: Operation | None, decision: Decision) -> tuple[str, str, int | None]:
    """For a drift: the action it leads to, why it is held (if it is), and when it will be tried."""
    if operation is None:
        return "", "needs a person" if drift.kind in _NEEDS_A_PERSON else "nothing to do yet", None
    for held in decision.held:
        if held.operation.key == operation.key:
            return operation.text, held.why, held.next_ms
    return operation.text, "", None


_NEEDS_A_PERSON = frozenset({"report-malformed", "machine-unreachable", "machine-surplus"})
