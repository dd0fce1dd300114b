"""Which operations of a plan may run now: the first policy that holds one says why. What passes them all runs as far
as the rollout and max_unavailable leave room.
"""

from __future__ import annotations

from emp_orch.fleet.drift.liveness import live_report
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy import rollout
from emp_orch.fleet.policy.holds import Decision, Held, Hold
from emp_orch.fleet.policy.policies import POLICIES
from emp_orch.fleet.policy.situation import Situation, has_config, out_of_sight


def gate(operations: tuple[Operation, ...], situation: Situation) -> Decision:
    """Split the plan into what runs now and what is held, each with its reason. Of those that disrupt a machine, the
    machines with the fewest busy workers come first, and of these the ones that are out of service anyway."""
    run: dict[str, Operation] = {}
    held: list[Held] = []
    away, given = set(situation.away), set(situation.given)
    for operation in sorted(operations, key=lambda o: (_busy(o, situation), _serves(o, situation))):
        hold = next((found for policy in POLICIES if (found := policy(operation, situation)) is not None), None)
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


def _disrupts(operation: Operation, s: Situation) -> bool:
    """Whether the operation takes something from a machine that serves, or may do so."""
    if operation.machine_id not in s.desired.machines or s.desired.is_leaving(operation.machine_id):
        return False
    if operation.verb is Verb.RESTART_MACHINE:
        return True
    changes = operation.verb is Verb.SEND_CONFIG and not has_config(operation.machine_id, s)
    # One of another package does its work until then; who takes its place may not.
    anew = operation.verb is Verb.RESTART_PROGRAM and operation.brings
    if not (changes or anew) or out_of_sight(operation.machine_id, s):
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
