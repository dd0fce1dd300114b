"""Which operations of a plan may run now: backoff, operations under way, and the budget of disrupted machines.

Memory is a value: `gate` reads it, `tried` and `settled` return the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from emp_orch.fleet.desired import DesiredMachine, config_hash
from emp_orch.fleet.drift import Desired, Drift, Kind
from emp_orch.fleet.hearing import heard, is_booting
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.observed import InstanceState, MachineStatus, Observed
from emp_orch.fleet.plan import Operation, Verb, operation_key

BACKOFF_BASE_MS = 2_000
BACKOFF_CAP_MS = 60_000
# An operation that was not needed for so long has healed: its attempts are forgotten.
RESET_AFTER_MS = 60_000
# An operation whose outcome is not known after this time, and its machine's drain, is taken for lost.
IN_FLIGHT_MS = 120_000
# How long after its begin the effect of an operation may not show in the machine's report yet.
REPORT_LAG_MS = 2_000


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
    away = _away(desired, observed, memory)
    for operation in operations:
        hold = _hold(operation, desired, observed, memory, paused, jitter)
        if hold is None and operation.machine_id not in away and _disrupts(operation, desired, observed):
            if len(away) >= desired.max_unavailable:
                hold = Held(operation=operation, why="max_unavailable machines are already disrupted", next_ms=None)
            else:
                away.add(operation.machine_id)
        if hold is None:
            run.append(operation)
        else:
            held.append(hold)
    return Decision(run=tuple(run), held=tuple(held))


def _hold(
    operation: Operation, desired: Desired, observed: Observed, memory: Memory, paused: str, jitter: float
) -> Held | None:
    if paused:
        return Held(operation=operation, why=f"paused: {paused}", next_ms=None)
    machine_id, now_ms = operation.machine_id, observed.now_ms
    for verb in _WHOLE:
        if verb is not operation.verb and _under_way(
            memory.get(operation_key(verb, machine_id)), verb, machine_id, desired, observed
        ):
            return Held(operation=operation, why="its machine is being started, stopped or configured", next_ms=None)
    attempt = memory.get(operation.key)
    if attempt is None:
        return None
    if _under_way(attempt, operation.verb, machine_id, desired, observed):
        return Held(operation=operation, why="under way", next_ms=None)
    next_ms = next_attempt_ms(attempt, jitter)
    if now_ms < next_ms:
        times = f"{attempt.count} attempt{'' if attempt.count == 1 else 's'}"
        return Held(operation=operation, why=f"backoff after {times}", next_ms=next_ms)
    return None


_WHOLE = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE, Verb.SEND_CONFIG)
# Carried out by the machine's agent, which says when it is done; the others by the reconciler itself.
_COMMANDS = (Verb.SEND_CONFIG, Verb.START_PROGRAM, Verb.RESTART_PROGRAM)
_CONFIG_STEM = operation_key(Verb.SEND_CONFIG, MachineId("")) + "/"
_COMMAND_STEMS = tuple(operation_key(verb, MachineId("")) + "/" for verb in _COMMANDS)


def _under_way(
    attempt: Attempt | None, verb: Verb, machine_id: MachineId, desired: Desired, observed: Observed
) -> bool:
    """Whether an operation was begun, its outcome is open, and there is still somebody who could carry it out."""
    if attempt is None or attempt.in_flight_since_ms is None:
        return False
    machine = desired.machines.get(machine_id)
    drain_ms = int(machine.drain_timeout_s * 1000) if machine else 0
    if observed.now_ms - attempt.in_flight_since_ms >= IN_FLIGHT_MS + drain_ms:
        return False
    instance = observed.instances.get(machine_id)
    if verb in _COMMANDS and instance is not None:
        # A command to a former life of the machine is void.
        gone = instance.state is InstanceState.GONE
        return not gone and instance.started_ms <= attempt.in_flight_since_ms
    return True


def _away(desired: Desired, observed: Observed, memory: Memory) -> set[MachineId]:
    """Desired machines that are not serving because of something emp did, and will be back.

    One that has settled with an error, or that nobody can start, does not hold up the others.
    """
    return {
        machine.id
        for machine in desired.machines.values()
        if _comes_back(machine, desired, observed)
        or _touched(Verb.RESTART_MACHINE, machine, desired, observed, memory)
        or (_touched(Verb.SEND_CONFIG, machine, desired, observed, memory) and not _has_config(machine, observed))
    }


def _comes_back(machine: DesiredMachine, desired: Desired, observed: Observed) -> bool:
    """Whether the machine is on its way to ready."""
    seen = heard(machine, desired, observed)
    if seen is None:
        return is_booting(machine, desired, observed)
    return seen.report.status is not MachineStatus.READY and not seen.report.error


def _touched(verb: Verb, machine: DesiredMachine, desired: Desired, observed: Observed, memory: Memory) -> bool:
    """Whether `verb` on the machine is under way, or so fresh that its report may not show the effect yet."""
    attempt = memory.get(operation_key(verb, machine.id))
    if attempt is None:
        return False
    fresh = observed.now_ms - attempt.last_ms < REPORT_LAG_MS
    return fresh or _under_way(attempt, verb, machine.id, desired, observed)


def _has_config(machine: DesiredMachine, observed: Observed) -> bool:
    seen = observed.machines.get(machine.id)
    return seen is not None and seen.report.config_hash == config_hash(machine)


def _disrupts(operation: Operation, desired: Desired, observed: Observed) -> bool:
    """Whether the operation takes something from a machine that serves, or may do so."""
    machine = desired.machines.get(operation.machine_id)
    if machine is None:
        return False
    if operation.verb is Verb.RESTART_MACHINE:
        return True
    if operation.verb is not Verb.SEND_CONFIG or _has_config(machine, observed):
        return False
    seen = observed.machines.get(machine.id)
    return seen is not None and seen.report.status is MachineStatus.READY


def tried(memory: Memory, operation: Operation, now_ms: int) -> dict[str, Attempt]:
    """Memory after `operation` was begun."""
    before = memory.get(operation.key)
    count = 1 if before is None else before.count + 1
    return {**memory, operation.key: Attempt(count=count, last_ms=now_ms, in_flight_since_ms=now_ms)}


def ended(memory: Memory, key: str, *, ok: bool) -> dict[str, Attempt]:
    """Memory after the outcome of operation `key` is known.

    A configuration that was taken over counts no more: the next one is not made to wait for it.
    """
    before = memory.get(key)
    if before is None:
        return dict(memory)
    count = 0 if ok and key.startswith(_CONFIG_STEM) else before.count
    return {**memory, key: Attempt(count=count, last_ms=before.last_ms, in_flight_since_ms=None)}


def asked_anew(memory: Memory) -> dict[str, Attempt]:
    """Memory after a new generation: configurations may be sent at once, unless one is being taken over."""
    return {k: a for k, a in memory.items() if a.in_flight_since_ms is not None or not k.startswith(_CONFIG_STEM)}


def settled(memory: Memory, operations: tuple[Operation, ...], now_ms: int) -> dict[str, Attempt]:
    """Memory after a tick that needed `operations`: what has healed for RESET_AFTER_MS is forgotten.

    A command that is no longer needed has had its effect, even where its acknowledgement was lost.
    """
    needed = {o.key for o in operations}
    kept: dict[str, Attempt] = {}
    for key, before in memory.items():
        done = key not in needed and key.startswith(_COMMAND_STEMS)
        attempt = structs.replace(before, in_flight_since_ms=None) if done else before
        if key in needed or attempt.in_flight_since_ms is not None or now_ms - attempt.last_ms < RESET_AFTER_MS:
            kept[key] = attempt
    return kept


def describe(drift: Drift, operation: Operation | None, decision: Decision) -> tuple[str, str, int | None]:
    """For a drift: the action it leads to, why it is held (if it is), and when it will be tried."""
    if operation is None:
        return "", "needs a person" if drift.kind in _NEEDS_A_PERSON else "nothing to do yet", None
    for held in decision.held:
        if held.operation.key == operation.key:
            return operation.text, held.why, held.next_ms
    return operation.text, "", None


_NEEDS_A_PERSON = frozenset(
    {Kind.REPORT_MALFORMED, Kind.MACHINE_UNREACHABLE, Kind.MACHINE_FOREIGN, Kind.MACHINE_SURPLUS}
)
