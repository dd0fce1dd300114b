"""Which operations of a plan may run now: the policies in order, and the first that holds an operation says why.

pause → breaker → quarantine → unknown → under way → busy → rest after flapping → backoff → rollout. What passes them
all runs.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cached_property

from msgspec import Struct

from emp_orch.fleet.desired.values import ProgramKind
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import is_booting, live_report, may_be_alive
from emp_orch.fleet.drift.slots import AT_WORK, at_job_on
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import InstanceState, MachineStatus, Observed
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key
from emp_orch.fleet.policy import rollout
from emp_orch.fleet.policy.memory import COMMANDS, REPORT_LAG_MS, Attempt, Memory
from emp_orch.fleet.policy.pauses import pause_of

BACKOFF_BASE_MS = 2_000
BACKOFF_CAP_MS = 60_000
# An operation whose outcome is not known after this time, and its machine's drain, is taken for lost.
IN_FLIGHT_MS = 120_000


# What its connector, asked every few seconds, may take to hear a service again that was busy.
HEARD_AGAIN_MS = 8_000


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


class Situation(Struct, frozen=True, kw_only=True, dict=True):
    """All that a policy may ask. `running`: keys of operations that the reconciler itself is at."""

    desired: Desired
    observed: Observed
    drifts: tuple[Drift, ...]
    memory: Memory
    quarantined: dict[str, str]
    overrides: tuple[Override, ...]
    running: frozenset[str]
    jitter: float

    @cached_property
    def away(self) -> frozenset[MachineId]:
        """Desired machines that are not serving because of something emp did, and will be back; and those that are
        back for too short a time to go on with the next.

        One that has settled with an error, or that nobody can start, does not hold up the others.
        """
        of_attempts = {MachineId(key.split("/", 2)[1]) for key in self.memory.attempts}
        candidates = {d.machine_id for d in self.drifts} | of_attempts
        settling = self.memory.rollout.settling.keys()
        return frozenset(i for i in candidates if i in self.desired.machines and _is_away(i, self)) | settling

    @cached_property
    def unread(self) -> frozenset[str]:
        """Machines that say something, and nobody can tell what."""
        return frozenset(
            m.id
            for m in self.observed.malformed
            if m.kind == "machine" and may_be_alive(m.seen_ms, MachineId(m.id), self.desired, self.observed)
        )

    @cached_property
    def broken(self) -> list[MachineId]:
        return rollout.broken_by_it(self.memory.rollout, self.drifts)

    @cached_property
    def given(self) -> frozenset[MachineId]:
        """Machines that this generation was given to and that are not in order with it, whatever became of them: for
        its sake no more than max_unavailable are out. What is cut off is not waited for."""
        return frozenset(i for i in rollout.given(self.memory.rollout) if not _out_of_sight(i, self))


def gate(operations: tuple[Operation, ...], situation: Situation) -> Decision:
    """Split the plan into what runs now and what is held, each with its reason. Of those that disrupt a machine, the
    machines with the fewest busy workers come first, and of these the ones that are out of service anyway."""
    run: dict[str, Operation] = {}
    held: list[Held] = []
    away, given = set(situation.away), set(situation.given)
    for operation in sorted(operations, key=lambda o: (_busy(o, situation), _serves(o, situation))):
        hold = next((found for policy in _POLICIES if (found := policy(operation, situation)) is not None), None)
        if hold is None and _disrupts(operation, situation):
            brings = rollout.brings(operation, situation.memory.rollout)
            hold = _given_to_enough(operation, given, situation) if brings else None
            if hold is None and operation.machine_id not in away:
                hold = _over_budget(operation, away, situation)
            if hold is None:
                away.add(operation.machine_id)
                given |= {operation.machine_id} if brings else set()
        if hold is None:
            run[operation.key] = operation
        else:
            held.append(hold)
    return Decision(run=tuple(o for o in operations if o.key in run), held=tuple(held))


def backoff_ms(count: int, jitter: float) -> int:
    """The pause after attempt number `count` (1, 2, …): doubling to a cap, less up to a tenth by `jitter` (0 … 1)."""
    pause = min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** (max(1, count) - 1))
    return int(pause * (1 - 0.1 * jitter))


# -- the policies


def _paused(operation: Operation, s: Situation) -> Held | None:
    pause = pause_of(operation, s.overrides)
    if pause is None:
        return None
    scope = "" if pause.machine_id is None else f"{pause.scope} is "
    return Held(operation=operation, by=Hold.PAUSE, why=f"{scope}paused: {pause.words}")


def _broken_circuit(operation: Operation, s: Situation) -> Held | None:
    breaker = s.memory.breaker
    harmless = operation.verb in (Verb.FORGET_WORKER, Verb.START_PART)
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
        if verb is not operation.verb and _under_way(verb, operation.machine_id, s):
            return Held(
                operation=operation, by=Hold.UNDER_WAY, why="its machine is being started, stopped or configured"
            )
    if operation.key in s.running or _is_open(s.memory.attempts.get(operation.key), operation.verb, operation, s):
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


_POLICIES: tuple[Callable[[Operation, Situation], Held | None], ...] = (
    _paused,
    _broken_circuit,
    _quarantined,
    _unknown,
    _begun,
    _at_a_job,
    _resting,
    _backing_off,
)


def _given_to_enough(operation: Operation, given: set[MachineId], s: Situation) -> Held | None:
    """Whether the generation is not given to this machine, for the sake of those that have it and are not in order."""
    if operation.machine_id in given:
        return None
    if len(s.broken) >= s.desired.max_unavailable:
        why = f"the rollout of generation {s.desired.generation} is halted: {', '.join(s.broken[:3])} failed with it"
        return Held(operation=operation, by=Hold.ROLLOUT, why=why)
    return _over_budget(operation, given, s)


def _over_budget(operation: Operation, away: set[MachineId], s: Situation) -> Held | None:
    """Whether no further machine may be disrupted now."""
    if len(away) < s.desired.max_unavailable:
        return None
    settling = s.memory.rollout.settling
    next_ms = None
    if settling and len(away - settling.keys()) < s.desired.max_unavailable:
        next_ms = min(settling.values()) + s.desired.limits.min_healthy_ms
    names = ", ".join(sorted(away)[:3]) + (" …" if len(away) > 3 else "")
    why = f"max_unavailable: {len(away)} of {s.desired.max_unavailable} are out already ({names})"
    return Held(operation=operation, by=Hold.UNAVAILABLE, why=why, next_ms=next_ms)


# -- what they ask

_MAY_BE_BUSY = frozenset({Kind.PROGRAM_UNHEALTHY, Kind.CONNECTOR_UNHEALTHY})

_BY_RUNTIME = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE)
_WHOLE = (Verb.START_MACHINE, Verb.RESTART_MACHINE, Verb.REMOVE_MACHINE, Verb.SEND_CONFIG)


def _under_way(verb: Verb, machine_id: MachineId, s: Situation) -> bool:
    """Whether a whole-machine operation was begun and its outcome is open."""
    key = operation_key(verb, machine_id)
    if key in s.running:
        return True
    attempt = s.memory.attempts.get(key)
    return attempt is not None and _is_open(
        attempt, verb, Operation(verb=verb, machine_id=machine_id, cause="", origin=""), s
    )


def _is_open(attempt: Attempt | None, verb: Verb, operation: Operation, s: Situation) -> bool:
    """Whether an attempt's outcome is open, and there is still somebody who could carry it out."""
    if attempt is None or attempt.in_flight_since_ms is None:
        return False
    machine = s.desired.machines.get(operation.machine_id)
    drain_ms = int(machine.drain_timeout_s * 1000) if machine else 0
    if s.observed.now_ms - attempt.in_flight_since_ms >= IN_FLIGHT_MS + drain_ms:
        return False
    instance = s.observed.instances.get(operation.machine_id)
    if verb in COMMANDS and instance is not None:
        # A command to a former life of the machine is void.
        gone = instance.state is InstanceState.GONE
        return not gone and instance.started_ms <= attempt.in_flight_since_ms
    return True


def _is_away(machine_id: MachineId, s: Situation) -> bool:
    return (
        _comes_back(machine_id, s)
        or _unfinished(machine_id, s)
        or _touched(Verb.RESTART_MACHINE, machine_id, s)
        or (
            _touched(Verb.SEND_CONFIG, machine_id, s)
            and not _has_config(machine_id, s)
            and not _out_of_sight(machine_id, s)
        )
    )


def _out_of_sight(machine_id: MachineId, s: Situation) -> bool:
    """Whether neither the machine nor its runtime says anything, as when its host is cut off: what it was sent waits
    for it, and nobody waits for it to take that."""
    instance = s.observed.instances.get(machine_id)
    unknown = instance is None or instance.state is InstanceState.UNKNOWN
    return unknown and live_report(s.desired.machines[machine_id], s.desired, s.observed) is None


def _comes_back(machine_id: MachineId, s: Situation) -> bool:
    """Whether the machine is on its way to ready."""
    machine = s.desired.machines[machine_id]
    seen = live_report(machine, s.desired, s.observed)
    if seen is None:
        return is_booting(machine, s.desired, s.observed)
    return seen.report.status is not MachineStatus.READY and not seen.report.error


def _unfinished(machine_id: MachineId, s: Situation) -> bool:
    """Whether the machine was sent this generation and is not in order with it yet, whatever status it tells."""
    if machine_id not in s.memory.rollout.touched or machine_id in s.broken:
        return False
    seen = live_report(s.desired.machines[machine_id], s.desired, s.observed)
    return not seen.report.error if seen is not None else machine_id in s.unread


def _touched(verb: Verb, machine_id: MachineId, s: Situation) -> bool:
    """Whether `verb` on the machine is under way, or so fresh that its report may not show the effect yet."""
    attempt = s.memory.attempts.get(operation_key(verb, machine_id))
    if attempt is None:
        return _under_way(verb, machine_id, s)
    return s.observed.now_ms - attempt.last_ms < REPORT_LAG_MS or _under_way(verb, machine_id, s)


def _has_config(machine_id: MachineId, s: Situation) -> bool:
    seen = s.observed.machines.get(machine_id)
    return seen is not None and seen.report.config_hash == s.desired.digests[machine_id]


def _disrupts(operation: Operation, s: Situation) -> bool:
    """Whether the operation takes something from a machine that serves, or may do so."""
    if operation.machine_id not in s.desired.machines:
        return False
    if operation.verb is Verb.RESTART_MACHINE:
        return True
    changes = operation.verb is Verb.SEND_CONFIG and not _has_config(operation.machine_id, s)
    # One of another package does its work until then; who takes its place may not.
    anew = operation.verb is Verb.RESTART_PROGRAM and operation.brings
    if not (changes or anew) or _out_of_sight(operation.machine_id, s):
        return False
    seen = s.observed.machines.get(operation.machine_id)
    return seen is not None and seen.report.status is MachineStatus.READY


def _serves(operation: Operation, s: Situation) -> bool:
    machine = s.desired.machines.get(operation.machine_id)
    seen = live_report(machine, s.desired, s.observed) if machine else None
    return seen is not None and seen.report.status is MachineStatus.READY


def _busy(operation: Operation, s: Situation) -> int:
    """How many workers would have to be drained; 0 for what disrupts nothing."""
    machine = s.desired.machines.get(operation.machine_id)
    if machine is None or not (operation.verb in (Verb.RESTART_MACHINE, Verb.SEND_CONFIG) or operation.brings):
        return 0
    # Those that a drained machine is not to have any more are what is drained.
    seen = (s.observed.workers.get(worker_id(machine.id, slot)) for slot in range(machine.num_gpus))
    return sum(w is not None and w.report.status in AT_WORK for w in seen)


# -- in words


def describe(drift: Drift, operation: Operation | None, decision: Decision) -> tuple[str, str, int | None]:
    """For a drift: the action it leads to, why it is held (if it is), and when it will be tried."""
    if operation is None:
        return "", "needs a person" if drift.kind in NEEDS_A_PERSON else "nothing to do yet", None
    held = decision.holding.get(operation.key)
    return (operation.text, held.why, held.next_ms) if held else (operation.text, "", None)


NEEDS_A_PERSON = frozenset(
    {
        *(Kind.REPORT_MALFORMED, Kind.MACHINE_UNREACHABLE, Kind.MACHINE_FOREIGN, Kind.MACHINE_SURPLUS),
        *(Kind.MACHINE_CONFLICT, Kind.GPU_LOST, Kind.GPU_MISSING, Kind.PROGRAM_PORT_TAKEN, Kind.CONNECTOR_BROKEN),
        *(Kind.MACHINE_AWAY, Kind.SERVICE_SHARED_FOLDERS, Kind.SERVICE_OCCUPIED, Kind.EMP_OUTDATED, Kind.DISK_FULL),
        *(Kind.IMAGE_MOVED, Kind.CONTAINER_LOOPING, Kind.STORE_BROKEN, Kind.ORDERS_FORGED, Kind.REDIS_DAMAGED),
    }
)
