"""The GPU slots of a machine: which work, and which are at a job. One slot's trouble is not to become another's."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.liveness import is_alive
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import (
    ConnectorStatus,
    MachineReport,
    Observed,
    ProgramState,
    WorkerReport,
    WorkerStatus,
)

AT_WORK = (WorkerStatus.BUSY, WorkerStatus.DRAINING)
ANSWERS = (ConnectorStatus.IDLE, ConnectorStatus.ACTIVE)


def service_program(machine: DesiredMachine, service: str, slot: int) -> DesiredProgram | None:
    """The program of `service` that the worker of `slot` uses: the slot's own, or else the machine's."""
    names = (ProgramName(f"{service}-gpu{slot}"), ProgramName(service))
    return next((p for name in names if (p := machine.program(name)) is not None), None)


def heard_workers(machine: DesiredMachine, desired: Desired, observed: Observed) -> Iterator[WorkerReport]:
    """What the machine's workers say that are known to be alive."""
    for wid in machine.workers:
        seen = observed.workers.get(wid)
        if seen is not None and seen.report.machine_id == machine.id and is_alive(seen.seen_ms, desired, observed):
            yield seen.report


def working(machine: DesiredMachine, desired: Desired, observed: Observed) -> tuple[int, ...]:
    """The slots whose worker is at a job, or could take one: a service that it uses runs and answers it."""
    seen = observed.machines.get(machine.id)
    if seen is None or not is_alive(seen.seen_ms, desired, observed):
        return ()
    return tuple(w.gpu for w in heard_workers(machine, desired, observed) if _works(w, machine, seen.report))


def _works(worker: WorkerReport, machine: DesiredMachine, report: MachineReport) -> bool:
    if worker.status in AT_WORK:
        return True
    if worker.status is not WorkerStatus.IDLE:
        return False
    answering = (s for s, c in worker.connector_statuses.items() if c.status in ANSWERS)
    return any(_is_up(service_program(machine, service, worker.gpu), report) for service in answering)


def _is_up(program: DesiredProgram | None, report: MachineReport) -> bool:
    got = report.programs.get(program.name) if program is not None else None
    return got is not None and got.state is ProgramState.RUNNING and got.healthy is not False


def at_job_on(
    program: DesiredProgram, machine: DesiredMachine, desired: Desired, observed: Observed
) -> WorkerReport | None:
    """A worker whose job may be on this service's program; None when there is none.

    While its connector does not answer, a worker cannot be seen to be active on it: it is, unless it is on another.
    """
    for worker in heard_workers(machine, desired, observed):
        if worker.status not in AT_WORK:
            continue
        active = [s for s, c in worker.connector_statuses.items() if c.status is ConnectorStatus.ACTIVE]
        services = active or list(worker.connector_statuses)
        if any(service_program(machine, service, worker.gpu) == program for service in services):
            return worker
    return None
