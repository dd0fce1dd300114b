"""A person's request → the operation that answers it."""

from __future__ import annotations

from emp_orch.errors import EmpError
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
            return _forget(machine_id, cause, desired, observed)


def _forget(machine_id: MachineId, cause: str, desired: Desired, observed: Observed) -> Operation:
    """Only what is neither wanted nor alive may be forgotten; a member of a pool at any time: its box may join anew."""
    if machine_id in desired.members:
        return Operation(verb=Verb.FORGET_MEMBER, machine_id=machine_id, cause=cause, origin="")
    if machine_id in desired.machines:
        raise EmpError(f"{machine_id} is in emp.yaml: it would only be started again; remove it there and apply")
    seen = observed.machines.get(machine_id)
    instance = observed.instances.get(machine_id)
    if seen is None and instance is None:
        raise EmpError(f"no machine {machine_id}: it neither runs nor reports")
    alive = seen is not None and abs(observed.now_ms - seen.seen_ms) <= desired.stale_after_ms
    if alive or (instance is not None and instance.state is InstanceState.RUNNING):
        raise EmpError(f"{machine_id} is alive; `emp apply --prune` stops and removes it")
    return Operation(verb=Verb.REMOVE_MACHINE, machine_id=machine_id, cause=cause, origin="")
