"""The policies that an operation has to pass, in their order.

pause → breaker → quarantine → unknown → under way → busy → rest after flapping → backoff.
"""

from __future__ import annotations

from collections.abc import Callable

from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.drift.kinds import Desired, Kind
from emp_orch.fleet.drift.slots import at_job_on
from emp_orch.fleet.model.observed import InstanceState, Observed
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key
from emp_orch.fleet.policy.holds import Held, Hold
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.policy.pauses import pause_of
from emp_orch.fleet.policy.situation import Situation, is_open, under_way

BACKOFF_BASE_MS = 2_000
BACKOFF_CAP_MS = 60_000
# What its connector, asked every few seconds, may take to hear a service again that was busy.
HEARD_AGAIN_MS = 8_000

_MAY_BE_BUSY = frozenset({Kind.PROGRAM_UNHEALTHY, Kind.CONNECTOR_UNHEALTHY})

_BY_RUNTIME = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE)
_WHOLE = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE, Verb.SEND_CONFIG)


def backoff_ms(count: int, jitter: float) -> int:
    """The pause after attempt number `count` (1, 2, …): doubling to a cap, less up to a tenth by `jitter` (0 … 1)."""
    pause = min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** (max(1, count) - 1))
    return int(pause * (1 - 0.1 * jitter))


def _paused(operation: Operation, s: Situation) -> Held | None:
    pause = pause_of(operation, s.overrides)
    if pause is None:
        return None
    scope = "" if pause.machine_id is None else f"{pause.scope} is "
    return Held(operation=operation, by=Hold.PAUSE, why=f"{scope}paused: {pause.words}")


def _broken_circuit(operation: Operation, s: Situation) -> Held | None:
    breaker = s.memory.breaker
    harmless = operation.verb in (Verb.FORGET_WORKER, Verb.FORGET_MEMBER, Verb.START_PART, Verb.REMOVE_MEMBER)
    if breaker.open_since_ms is None or harmless or operation.machine_id in breaker.trial:
        return None
    next_ms = breaker.trial_ms + s.desired.limits.breaker_probe_ms
    return Held(operation=operation, by=Hold.BREAKER, why=f"the breaker is open: {breaker.reason}", next_ms=next_ms)


def _quarantined(operation: Operation, s: Situation) -> Held | None:
    why = s.quarantined.get(operation.key)
    return None if why is None else Held(operation=operation, by=Hold.QUARANTINE, why=f"needs a person: {why}")


def _unknown(operation: Operation, s: Situation) -> Held | None:
    """What cannot be seen to run is neither stopped nor started, whatever else is known of it."""
    instance = s.observed.instances.get(operation.machine_id)
    if instance is None or instance.state is not InstanceState.UNKNOWN or operation.verb not in _BY_RUNTIME:
        return None
    why = f"unknown whether it runs: {instance.detail or 'its runtime does not say'}"
    return Held(operation=operation, by=Hold.UNKNOWN, why=why)


def _begun(operation: Operation, s: Situation) -> Held | None:
    for verb in _WHOLE:
        if verb is not operation.verb and under_way(verb, operation.machine_id, s):
            return Held(
                operation=operation, by=Hold.UNDER_WAY, why="its machine is being started, stopped or configured"
            )
    if operation.key in s.running or is_open(s.memory.attempts.get(operation.key), operation.verb, operation, s):
        return Held(operation=operation, by=Hold.UNDER_WAY, why="under way")
    return None


def _at_a_job(operation: Operation, s: Situation) -> Held | None:
    """A service that answers nobody may just be busy: no restart while a job is on it that its own limit allows.

    Held for a job's longest time at most, from when the trouble began: who had begun before has then ended. When the
    job has ended the service has a moment to answer again.
    """
    machine = s.desired.machines.get(operation.machine_id)
    program = machine.program(operation.program) if machine and operation.program else None
    busy_ms = s.memory.busy.get(operation.key)
    if machine is None or program is None or busy_ms is None:
        return None
    answers = [d for d in s.drifts if d.program == program.name and d.machine_id == machine.id]
    if not {d.kind for d in answers} <= _MAY_BE_BUSY:
        return None
    now_ms = s.observed.now_ms
    until_ms = min((s.memory.onsets[d.key].since_ms for d in answers), default=now_ms)
    until_ms += int(machine.job_timeout_s * 1000)
    why = "its job has just ended, and it may answer again"
    if (worker := at_job_on(program, machine, s.desired, s.observed)) is not None:
        why = f"{worker.worker_id} is at job {worker.current_job_id or '?'} on it"
    else:
        health_ms = int((program.health.interval_s + program.health.timeout_s) * 1000) if program.health else 0
        until_ms = min(until_ms, busy_ms + HEARD_AGAIN_MS + health_ms)
    return None if now_ms >= until_ms else Held(operation=operation, by=Hold.BUSY, why=why, next_ms=until_ms)


def busy_at(operations: tuple[Operation, ...], desired: Desired, observed: Observed, memory: Memory) -> dict[str, int]:
    """When a job was last seen on the services that `operations` would restart, by the operation's key."""
    found: dict[str, int] = {}
    for operation in operations:
        machine = desired.machines.get(operation.machine_id)
        program = machine.program(operation.program) if machine and operation.program else None
        if machine is None or program is None or operation.verb is not Verb.RESTART_PROGRAM:
            continue
        if program.kind is not ProgramKind.SERVICE:
            continue
        if at_job_on(program, machine, desired, observed) is not None:
            found[operation.key] = observed.now_ms
        elif operation.key in memory.busy:
            found[operation.key] = memory.busy[operation.key]
    return found


def _resting(operation: Operation, s: Situation) -> Held | None:
    """A program that was stopped because it was flapping stays so for a while, longer each time within the window."""
    if operation.verb is not Verb.START_PROGRAM:
        return None
    stop = s.memory.attempts.get(operation_key(Verb.STOP_PROGRAM, operation.machine_id, operation.program))
    times = [t for t in stop.times_ms if s.observed.now_ms - t < s.desired.limits.window_ms] if stop else []
    if not times:
        return None
    next_ms = times[-1] + backoff_ms(len(times) + 2, s.jitter)
    if s.observed.now_ms >= next_ms:
        return None
    often = f", stopped {len(times)} times" if len(times) > 1 else ""
    return Held(operation=operation, by=Hold.RESTING, why=f"it was flapping{often}", next_ms=next_ms)


def _backing_off(operation: Operation, s: Situation) -> Held | None:
    attempt = s.memory.attempts.get(operation.key)
    if attempt is None:
        return None
    next_ms = attempt.last_ms + backoff_ms(attempt.count, s.jitter)
    if s.observed.now_ms >= next_ms:
        return None
    times = f"{attempt.count} attempt{'' if attempt.count == 1 else 's'}"
    return Held(operation=operation, by=Hold.BACKOFF, why=f"backoff after {times}", next_ms=next_ms)


POLICIES: tuple[Callable[[Operation, Situation], Held | None], ...] = (
    _paused,
    _broken_circuit,
    _quarantined,
    _unknown,
    _begun,
    _at_a_job,
    _resting,
    _backing_off,
)
