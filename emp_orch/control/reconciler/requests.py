"""A person's request → the operation that answers it."""

from __future__ import annotations

from emp_orch.errors import EmpError
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.drift.table import Desired
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.observed import InstanceState, Observed
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.store.fleet.requests import Request
from emp_orch.store.fleet.requests import Verb as Asked


def as_operation(request: Request | None, desired: Desired, observed: Observed) -> Operation:
    """The operation for `request`. Raises EmpError when it names nothing, or must not be done."""
    if request is None:
        raise EmpError("the request does not fit: it is too old, was answered before, or nobody of this fleet asked it")
    machine_id = MachineId(request.machine_id)
    machine = desired.machines.get(machine_id)
    cause = f"asked by {request.by}"
    match request.verb:
        case Asked.RESTART_MACHINE:
            if machine is None:
                raise EmpError(f"no machine {machine_id} in generation {desired.generation}")
            return Operation(verb=Verb.RESTART_MACHINE, machine_id=machine_id, cause=cause, origin=machine.origin)
        case Asked.RESTART_PROGRAM:
            program = machine.program(ProgramName(request.program or "")) if machine else None
            if program is None:
                raise EmpError(f"no program {request.program} on {machine_id} in generation {desired.generation}")
            return Operation(
                verb=Verb.RESTART_PROGRAM,
                machine_id=machine_id,
                program=program.name,
                cause=cause,
                origin=program.origin,
            )
        case Asked.CLOSE_BREAKER:
            raise EmpError("closing the breaker is no operation on a machine")
        case Asked.FORGET_MACHINE:
            return _forget(machine_id, cause, desired, observed, force=request.force)


def _forget(machine_id: MachineId, cause: str, desired: Desired, observed: Observed, *, force: bool) -> Operation:
    """Only what is neither wanted nor alive may be forgotten; a member of a pool at any time that it holds no job: its
    box may join anew."""
    if machine_id in desired.members or machine_id in desired.former:
        held = _at_work(machine_id, desired, observed)
        if held and not force:
            raise EmpError(f"{machine_id} is at work on {held}: `emp drain {machine_id}` first, or forget it by force")
        return Operation(verb=Verb.FORGET_MEMBER, machine_id=machine_id, cause=cause, origin="")
    if machine_id in desired.machines:
        raise EmpError(f"{machine_id} is in emp.yaml: it would only be started again; remove it there and apply")
    seen = observed.machines.get(machine_id)
    instance = observed.instances.get(machine_id)
    if seen is None and instance is None:
        raise EmpError(f"no machine {machine_id}: it neither runs nor reports")
    if _heard(seen.seen_ms if seen else None, desired, observed) or (
        instance is not None and instance.state is InstanceState.RUNNING
    ):
        raise EmpError(f"{machine_id} is alive; `emp apply --prune` stops and removes it")
    return Operation(verb=Verb.REMOVE_MACHINE, machine_id=machine_id, cause=cause, origin="")


def _at_work(machine_id: MachineId, desired: Desired, observed: Observed) -> str:
    """The jobs that its workers hold, for people; empty where none does, or none was heard lately."""
    machine = desired.machines.get(machine_id)
    ids = machine.workers if machine is not None else ()
    workers = [w for i in ids if (w := observed.workers.get(i)) is not None]
    busy = [w.report for w in workers if w.report.status in AT_WORK and _heard(w.seen_ms, desired, observed)]
    return ", ".join(sorted(f"job {w.current_job_id}" if w.current_job_id else f"{w.worker_id}" for w in busy))


def _heard(seen_ms: int | None, desired: Desired, observed: Observed) -> bool:
    return seen_ms is not None and abs(observed.now_ms - seen_ms) <= desired.stale_after_ms
