"""How a generation goes from machine to machine, and when it is called stalled.

It reaches a machine by a configuration, a new container, a start or restart of the machine, or a restart of what runs
another package: all of these are the rollout's (`brings`).
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from emp_orch.fleet.drift.kinds import BEHIND, BESIDE, Desired, Drift, Kind
from emp_orch.fleet.drift.members import awaited
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.breaker import FAILURES, counted
from emp_orch.fleet.policy.memory import Memory, Rollout

# Whatever they are begun for: the machine runs the generation in force afterwards.
_WITH_THE_GENERATION = (Verb.START_MACHINE, Verb.RESTART_MACHINE)
_LACKS = BEHIND | {Kind.GENERATION_BEHIND}


def step(drifts: tuple[Drift, ...], desired: Desired, memory: Memory, now_ms: int) -> Rollout:
    """The rollout after this look."""
    rollout = memory.rollout
    if rollout.generation != desired.generation:
        rollout = Rollout(generation=desired.generation, progress_ms=now_ms, good=rollout.good, ill=_ill(memory))
    # A box that is off says nothing of a generation, and nobody here could bring it along.
    absent = awaited(desired, drifts)
    away = absent | {d.machine_id for d in drifts if d.kind is Kind.MACHINE_AWAY}
    drifting = {d.machine_id for d in drifts if d.machine_id in desired.machines and d.kind not in BESIDE} - away
    # Not in order for as long as it must be: the generation may well be why.
    relapsed = rollout.settling.keys() & drifting
    candidates = rollout.pending | relapsed | {d.machine_id for d in drifts if d.kind in _LACKS}
    whole = {i for i in rollout.pending - away if i not in drifting}
    pending = frozenset(i for i in candidates if i not in whole | away and i in desired.machines)
    # Some machine of many is always broken; a generation is good when most of the fleet is in order with it.
    count = counted(drifts, desired)
    good = not pending and 2 * len(drifting) <= count - (count == 1)
    settling = {
        i: at for i, at in rollout.settling.items() if i not in drifting and now_ms - at < desired.limits.min_healthy_ms
    }
    settling |= {i: now_ms for i in whole & rollout.touched if desired.limits.min_healthy_ms}
    done = (rollout.done if rollout.pending or relapsed else 0) + len(whole) - len(relapsed)
    progress_ms = now_ms if whole or not pending else rollout.progress_ms
    return structs.replace(
        rollout,
        pending=pending,
        settling=settling,
        done=max(0, done) if pending else 0,
        touched=(rollout.touched | relapsed) & pending,
        progress_ms=progress_ms,
        stalled=bool(pending) and now_ms - progress_ms >= desired.limits.progress_deadline_ms,
        good=desired.generation if good and not settling else rollout.good,
        ill=rollout.ill & drifting,
    )


def _ill(memory: Memory) -> frozenset[MachineId]:
    """Machines that failed before there was this generation. What the last one broke this one is to mend."""
    failed = {o.drift.machine_id for o in memory.onsets.values() if o.drift.kind in FAILURES}
    return frozenset(failed - memory.rollout.touched)


def brings(operation: Operation, rollout: Rollout) -> bool:
    """Whether the machine gets the generation by `operation`, and is not known to be in order with it."""
    whole = operation.verb in _WITH_THE_GENERATION and operation.machine_id in rollout.pending
    return operation.brings or whole


def sent(rollout: Rollout, operations: Iterable[Operation]) -> Rollout:
    """The rollout after these operations were begun."""
    touched = {o.machine_id for o in operations if brings(o, rollout) and o.machine_id in rollout.pending}
    return structs.replace(rollout, touched=rollout.touched | touched) if touched else rollout


def is_wanted(operation: Operation, rollout: Rollout) -> bool:
    """Whether it carries out what a person asked for, for the first time: no try to repair anything."""
    return operation.brings and operation.machine_id not in rollout.touched


def broken_by_it(rollout: Rollout, drifts: Iterable[Drift]) -> list[MachineId]:
    """Machines that took this generation over and have failed since: it is not given to more of them."""
    return sorted({d.machine_id for d in drifts if d.kind in FAILURES and d.machine_id in given(rollout)})


def given(rollout: Rollout) -> frozenset[MachineId]:
    """Machines that were in order, were given this generation, and are not in order with it."""
    return rollout.touched - rollout.ill


def going_back(rollout: Rollout, desired: Desired) -> int | None:
    """The generation to return to by itself; None when that is not to be done.

    Who was never given this one tells nothing against it: a fleet may be paused, or a host away.
    """
    asked = rollout.stalled and desired.limits.rollback and bool(given(rollout))
    return rollout.good if asked and 0 < rollout.good < desired.generation else None
