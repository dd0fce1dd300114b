"""Tries are bounded: what a program's do not mend is escalated to its machine where that can help, or left to a person.

A machine is restarted for one of its programs only when nothing on it works, and never for what a restart cannot help:
a program that exits at once will do so again. Else the trouble stays the slot's: it is quarantined, and the others run.
Tries are counted over a sliding window, also across moments of health, so that what fails again and again is seen.
"""

from __future__ import annotations

from msgspec import Struct, structs

from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.slots import working
from emp_orch.fleet.model.observed import Observed, ProgramState
from emp_orch.fleet.plan.operations import Operation, Verb, operation_key
from emp_orch.fleet.policy.memory import REPORT_LAG_MS, Memory
from emp_orch.fleet.policy.rollout import is_wanted

# What counts as a try. A flapping program is stopped, too, but that mends nothing: what follows does.
_PROGRAM_VERBS = (Verb.START_PROGRAM, Verb.RESTART_PROGRAM)


# What did not come up within its time, and lives, has most likely only a longer way: another start begins it anew.
ONCE = 1


class Escalated(Struct, frozen=True, kw_only=True):
    """`operations`: the plan with what was used up replaced. `quarantined`: operation key → why it is left alone.
    `instead`: operation key → the key of the one that took its place."""

    operations: tuple[Operation, ...]
    quarantined: dict[str, str]
    instead: dict[str, str]


def escalate(operations: tuple[Operation, ...], desired: Desired, observed: Observed, memory: Memory) -> Escalated:
    """Leave to a person what has used up its budget, or put a restart of its machine in its place. What a person wants
    is no try: a generation is carried out, whatever was tried before it came.
    """
    found: dict[str, Operation] = {}
    repairs = {o.key for o in operations if not is_wanted(o, memory.rollout)}
    quarantined = {key: why for key, why in memory.quarantined.items() if key in repairs}
    instead: dict[str, str] = {}
    limits = desired.limits
    minutes = f"{limits.window_ms / 60_000:g} min"
    for operation in operations:
        chosen = operation
        budgeted = operation.key in repairs and operation.verb in (*_PROGRAM_VERBS, Verb.RESTART_MACHINE)
        if budgeted and operation.key not in quarantined:
            tries = _tries(operation, memory, observed.now_ms, limits.window_ms)
            restart = _machine_restart(
                operation, f"{operation.program}: {_times(tries, 'try')} in {minutes} did not help"
            )
            restarts = _tries(restart, memory, observed.now_ms, limits.window_ms)
            on_program = operation.verb in _PROGRAM_VERBS
            late = _still_starting(operation, desired, observed)
            if on_program and tries < (ONCE if late else limits.program_budget):
                pass
            elif late:
                quarantined[operation.key] = (
                    f"it was restarted and again did not come up within {late}: raise health.startup if it needs"
                    f" longer; `emp restart {operation.machine_id} {operation.program}` tries again"
                )
            elif on_program and (why := _stays_its_own(operation, desired, observed)):
                quarantined[operation.key] = (
                    f"{_times(tries, 'try')} in {minutes} did not help, and {why};"
                    f" `emp restart {operation.machine_id} {operation.program}` tries again"
                )
            elif restarts >= limits.machine_budget:
                tried = f"{_times(tries, 'try')} and " if on_program else ""
                quarantined[operation.key] = (
                    f"{tried}{_times(restarts, 'restart')} of the machine in {minutes} did"
                    f" not help; `emp restart {operation.machine_id}` tries again"
                )
            elif on_program:
                instead[operation.key] = restart.key
                chosen = restart
        found.setdefault(chosen.key, chosen)
    return Escalated(operations=tuple(found.values()), quarantined=quarantined, instead=instead)


def _stays_its_own(operation: Operation, desired: Desired, observed: Observed) -> str:
    """Why the machine is not restarted for this program; empty when that may help and takes nothing from anybody."""
    machine, seen = desired.machines.get(operation.machine_id), observed.machines.get(operation.machine_id)
    if machine is None or seen is None or operation.program is None:
        return ""
    got, want = seen.report.programs.get(operation.program), machine.program(operation.program)
    if want is not None and want.kind.once:
        return "a restart of the machine runs the same step again"
    if got is not None and got.state is ProgramState.FATAL:
        return "it ends at once each time, which a restart of the machine does not change"
    slots = working(machine, desired, observed)
    if slots:
        names = ", ".join(map(str, slots[:8])) + (", …" if len(slots) > 8 else "")
        return f"the machine is not restarted while slot{'' if len(slots) == 1 else 's'} {names} of it work{_s(slots)}"
    return ""


def _still_starting(operation: Operation, desired: Desired, observed: Observed) -> str:
    """The time that a process of emp.yaml had to come up in, and did not; empty for any that passed its check once."""
    machine, seen = desired.machines.get(operation.machine_id), observed.machines.get(operation.machine_id)
    if machine is None or seen is None or operation.program is None or operation.verb is not Verb.RESTART_PROGRAM:
        return ""
    got, want = seen.report.programs.get(operation.program), machine.program(operation.program)
    if got is None or not got.never_healthy or want is None or want.health is None:
        return ""
    return f"{want.health.startup_s:g} s"


def _times(count: int, word: str) -> str:
    """`1 try`, `3 tries`."""
    plural = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{count} {word if count == 1 else plural}"


def _s(slots: tuple[int, ...]) -> str:
    return "s" if len(slots) == 1 else ""


def _machine_restart(operation: Operation, cause: str) -> Operation:
    return structs.replace(operation, verb=Verb.RESTART_MACHINE, program=None, cause=cause)


def _tries(operation: Operation, memory: Memory, now_ms: int, window_ms: int) -> int:
    """How often this subject was tried within the window, whichever way. What is under way has not failed yet, nor
    has what was begun so lately that its effect may not show.
    """
    verbs = _PROGRAM_VERBS if operation.verb in _PROGRAM_VERBS else (operation.verb,)
    keys = {operation_key(verb, operation.machine_id, operation.program) for verb in verbs}
    attempts = [a for key in keys if (a := memory.attempts.get(key))]
    tried = sum(now_ms - t < window_ms for a in attempts for t in a.times_ms)
    open_ = any(a.in_flight_since_ms is not None or now_ms - a.last_ms < REPORT_LAG_MS for a in attempts)
    return max(0, tried - open_)
