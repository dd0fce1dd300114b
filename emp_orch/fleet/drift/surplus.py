"""What runs or reports, and is not desired. Shown always; removed only when that was asked for."""

from __future__ import annotations

from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import may_be_alive
from emp_orch.fleet.drift.members import pool_of
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import machine_of, worker_id
from emp_orch.fleet.model.observed import InstanceState, Observed


def surplus_workers(desired: Desired, observed: Observed) -> list[Drift]:
    surplus = {i for i in _known_machines(desired, observed) if i not in desired.machines}
    readable = [
        (i, w.report.machine_id, w.seen_ms, str(w.report.status))
        for i, w in observed.workers.items()
        if not is_wanted(i, desired)
    ]
    unreadable = [(WorkerId(m.id), machine_of(m.id), m.seen_ms, "") for m in observed.malformed if m.kind == "worker"]
    found = []
    for wid, machine_id, seen_ms, status in sorted(readable + unreadable):
        silent = not may_be_alive(seen_ms, machine_id, desired, observed)
        # A machine that is itself surplus takes its workers with it. A living one that cannot be read is a riddle.
        if is_wanted(wid, desired) or machine_id in surplus or not (silent or status):
            continue
        found.append(
            Drift(
                kind=Kind.WORKER_SURPLUS,
                machine_id=machine_id,
                subject=wid,
                desired="absent",
                observed="silent" if silent else status,
                cause="it ended without taking its report away" if silent else _why_surplus(wid, desired),
                origin="",
                seen_ms=seen_ms if silent else None,
            )
        )
    return sorted(found, key=lambda d: d.subject)


def _why_surplus(worker: str, desired: Desired) -> str:
    machine = desired.machines.get(machine_of(worker))
    drained = machine is not None and machine.drained
    return "its machine is drained: it finishes its job, and ends" if drained else "no GPU slot of this fleet has it"


def is_wanted(worker: str, desired: Desired) -> bool:
    """Whether a desired machine has a GPU slot for this worker."""
    machine_id, _, slot = worker.rpartition("-worker-")
    machine = desired.machines.get(MachineId(machine_id))
    # By the number alone: all workers of a fleet are asked about.
    if machine is None or machine.drained or not slot.isdecimal():
        return False
    return int(slot) < machine.num_gpus and worker == worker_id(machine.id, int(slot))


def _known_machines(desired: Desired, observed: Observed) -> dict[MachineId, int | None]:
    """Every machine that runs or has a report, readable or not, with when it was last heard.

    Pruning is done when nothing is left, so what is stopped counts then; without it, it hurts nobody.
    """
    states = (InstanceState.RUNNING, InstanceState.GONE) if desired.prune else (InstanceState.RUNNING,)
    known: dict[MachineId, int | None] = {i: None for i, n in observed.instances.items() if n.state in states}
    known |= {MachineId(m.id): m.seen_ms for m in observed.malformed if m.kind == "machine"}
    known |= {i: m.seen_ms for i, m in observed.machines.items()}
    return known


def surplus_machines(desired: Desired, observed: Observed) -> list[Drift]:
    known = {**dict.fromkeys(desired.former), **_known_machines(desired, observed)}
    return [
        _surplus_machine(machine_id, known[machine_id], desired, observed)
        for machine_id in sorted(i for i in known if i not in desired.machines)
    ]


def _surplus_machine(machine_id: MachineId, seen_ms: int | None, desired: Desired, observed: Observed) -> Drift:
    seen = observed.machines.get(machine_id)
    heard = seen_ms is not None and may_be_alive(seen_ms, machine_id, desired, observed)
    instance = observed.instances.get(machine_id)
    unknown = instance is None or instance.state is InstanceState.UNKNOWN
    stopped = instance is not None and instance.state is InstanceState.GONE
    cause = "emp.yaml does not name it"
    pool, former = pool_of(machine_id, desired.pools), desired.former.get(machine_id)
    if former is not None:
        kind = Kind.MACHINE_SURPLUS
        cause = f"pool {former.pool} is no longer in emp.yaml"
        cause += "" if desired.prune else "; `emp apply --prune` removes it"
    elif pool is not None and instance is None:
        cause = f"it is no member of pool {pool}"
        kind = Kind.MACHINE_FOREIGN if heard else Kind.MEMBER_SILENT
        cause += "; its box has to join anew, or is to be stopped" if heard else " any more; what it left is forgotten"
    elif heard and unknown:
        kind = Kind.MACHINE_FOREIGN
        cause += ", and no runtime here can stop it; stop it where it runs"
    else:
        kind = Kind.MACHINE_SURPLUS
        cause += "" if desired.prune else "; `emp apply --prune` removes it"
    return Drift(
        kind=kind,
        machine_id=machine_id,
        subject=machine_id,
        desired="absent",
        observed=(seen.report.status if seen else "unreadable") if heard else "stopped" if stopped else "silent",
        cause=cause,
        origin="",
        seen_ms=seen_ms,
    )
