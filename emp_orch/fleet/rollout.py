"""How a generation goes from machine to machine, and when it is called stalled."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from emp_orch.fleet.breaker import FAILURES
from emp_orch.fleet.kinds import ASIDE, Desired, Drift, Kind
from emp_orch.fleet.memory import Memory, Rollout
from emp_orch.fleet.model import MachineId
from emp_orch.fleet.plan import Operation, Verb


def step(drifts: tuple[Drift, ...], desired: Desired, memory: Memory, now_ms: int) -> Rollout:
    """The rollout after this look."""
    rollout = memory.rollout
    if rollout.generation != desired.generation:
        rollout = Rollout(generation=desired.generation, progress_ms=now_ms, good=rollout.good)
    behind = {d.machine_id for d in drifts if d.kind is Kind.CONFIG_BEHIND}
    # A box that is off says nothing of a generation, and nobody here could bring it along.
    away = {d.machine_id for d in drifts if d.kind is Kind.MACHINE_AWAY}
    drifting = {d.machine_id for d in drifts if d.machine_id in desired.machines and d.kind not in ASIDE}
    drifting -= away
    whole = {i for i in rollout.pending - away if i not in drifting}
    pending = frozenset(i for i in rollout.pending | behind if i not in whole | away and i in desired.machines)
    # Some machine of many is always broken; a generation is good when most of the fleet is in order with it.
    good = not pending and 2 * len(drifting) <= len(desired.machines) - (len(desired.machines) == 1)
    settling = {
        i: at for i, at in rollout.settling.items() if i not in drifting and now_ms - at < desired.limits.min_healthy_ms
    }
    settling |= {i: now_ms for i in whole & rollout.touched if desired.limits.min_healthy_ms}
    done = (rollout.done if rollout.pending else 0) + len(whole)
    progress_ms = now_ms if whole or not pending else rollout.progress_ms
    return structs.replace(
        rollout,
        pending=pending,
        settling=settling,
        done=done if pending else 0,
        touched=rollout.touched & pending,
        progress_ms=progress_ms,
        stalled=bool(pending) and now_ms - progress_ms >= desired.limits.progress_deadline_ms,
        good=desired.generation if good else rollout.good,
    )


def sent(rollout: Rollout, operations: Iterable[Operation]) -> Rollout:
    """The rollout after these operations were begun."""
    touched = {o.machine_id for o in operations if o.verb is Verb.SEND_CONFIG and o.machine_id in rollout.pending}
    return structs.replace(rollout, touched=rollout.touched | touched) if touched else rollout


def broken_by_it(rollout: Rollout, drifts: Iterable[Drift]) -> list[MachineId]:
    """Machines that took this generation over and have failed since: it is not given to more of them."""
    return sorted({d.machine_id for d in drifts if d.kind in FAILURES and d.machine_id in rollout.touched})


def going_back(rollout: Rollout, desired: Desired) -> int | None:
    """The generation to return to by itself; None when that is not to be done."""
    ready = rollout.stalled and desired.limits.rollback and 0 < rollout.good < desired.generation
    return rollout.good if ready else None
