"""Which operations of a plan may run now: the first policy that holds one says why. What passes them all runs as far
as the rollout and max_unavailable leave room.
"""

from __future__ import annotations

from emp_orch.fleet.drift.liveness import live_report
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy import rollout
from emp_orch.fleet.policy.allowance import Allowance, full, group_of, limits
from emp_orch.fleet.policy.holds import Decision, Held, Hold
from emp_orch.fleet.policy.policies import POLICIES
from emp_orch.fleet.policy.situation import Situation, has_config, out_of_sight


def gate(operations: tuple[Operation, ...], situation: Situation) -> Decision:
    """Split the plan into what runs now and what is held, each with its reason. Of those that disrupt a machine, the
    machines with the fewest busy workers come first, and of these the ones that are out of service anyway."""
    run: dict[str, Operation] = {}
    held: list[Held] = []
    room = _Room(situation)
    for operation in sorted(operations, key=lambda o: (_busy(o, situation), _serves(o, situation))):
        hold = next((found for policy in POLICIES if (found := policy(operation, situation)) is not None), None)
        if hold is None and _disrupts(operation, situation):
            brings = rollout.brings(operation, situation.memory.rollout)
            hold = room.hold(operation, brings=brings)
        if hold is None:
            run[operation.key] = operation
        else:
            held.append(hold)
    return Decision(run=tuple(o for o in operations if o.key in run), held=tuple(held))


class _Room:
    """Room for machines that are out: of all that are away, and of those that the generation was given to."""

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._limits = limits(situation.desired)
        self._away = Allowance(situation.desired, situation.away)
        self._given = Allowance(situation.desired, situation.given)
        self._halted = full(situation.desired, situation.broken)

    def hold(self, operation: Operation, *, brings: bool) -> Held | None:
        """Why the operation may not disrupt its machine now; None: it may, and its machine counts as out from now."""
        held = self._given_to_enough(operation) if brings else None
        if held is None and operation.machine_id not in self._away:
            held = self._over_budget(operation, self._away)
        if held is None:
            self._away.add(operation.machine_id)
            if brings:
                self._given.add(operation.machine_id)
        return held

    def _given_to_enough(self, operation: Operation) -> Held | None:
        """Whether the generation is not given to this machine, for the sake of those that have it and are not in
        order."""
        if operation.machine_id in self._given:
            return None
        s, group = self._s, group_of(self._s.desired, operation.machine_id)
        if group in self._halted:
            broken = [i for i in s.broken if group_of(s.desired, i) == group]
            why = f"the rollout of generation {s.desired.generation} is halted: {', '.join(broken[:3])} failed with it"
            return Held(operation=operation, by=Hold.ROLLOUT, why=why)
        return self._over_budget(operation, self._given)

    def _over_budget(self, operation: Operation, counted: Allowance) -> Held | None:
        """Whether no further machine may be disrupted now."""
        s, out = self._s, counted.beside(operation.machine_id)
        group = group_of(s.desired, operation.machine_id)
        most = self._limits.get(group, s.desired.max_unavailable)
        if len(out) < most:
            return None
        settling = {i: ms for i, ms in s.memory.rollout.settling.items() if i in out}
        next_ms = None
        if settling and len(out) - len(settling) < most:
            next_ms = min(settling.values()) + s.desired.limits.min_healthy_ms
        names = ", ".join(sorted(out)[:3]) + (" …" if len(out) > 3 else "")
        of = f" of pool {group}" if group else ""
        why = f"max_unavailable: {len(out)} of {most}{of} are out already ({names})"
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
