"""The workers that a fleet should have, by their own word where they have one that counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from emp_orch.fleet.desired.workers import KnownWorker, possible_workers
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.observed import ProgramState, SeenMachine, SeenWorker
from emp_orch.jobs.matching.workable import DesiredWorker
from emp_orch.store.fleet.generations import Generation


def desired_workers(
    current: Generation, machines: Mapping[MachineId, SeenMachine], workers: Mapping[WorkerId, SeenWorker]
) -> tuple[DesiredWorker, ...]:
    """Every worker of the fleet, and those that more members of its pools would have. Its report counts while its
    machine is of this generation and runs it; else the file's word does, for a worker that was killed on the way to new
    services left its old report behind.
    """
    return desired_on(possible_workers(current.fleet), current, machines, workers)


def desired_on(
    known: Iterable[KnownWorker],
    current: Generation,
    machines: Mapping[MachineId, SeenMachine],
    workers: Mapping[WorkerId, SeenWorker],
) -> tuple[DesiredWorker, ...]:
    """As `desired_workers`, of these alone."""
    return tuple(_desired(w, current, machines.get(w.machine_id), workers.get(w.worker_id)) for w in known)


def _desired(
    worker: KnownWorker, current: Generation, machine: SeenMachine | None, seen: SeenWorker | None
) -> DesiredWorker:
    if seen is None or machine is None or not _runs(worker, current, machine):
        return DesiredWorker(worker_id=worker.worker_id, machine_id=worker.machine_id, known=worker.capabilities)
    return DesiredWorker(
        worker_id=worker.worker_id,
        machine_id=worker.machine_id,
        known=worker.capabilities,
        reported=seen.report.capabilities,
        unloaded=seen.report.unloaded,
    )


def _runs(worker: KnownWorker, current: Generation, machine: SeenMachine) -> bool:
    report = machine.report
    program = report.programs.get(worker.program)
    return report.generation == current.number and (program is None or program.state is ProgramState.RUNNING)
