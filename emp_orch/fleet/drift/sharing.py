"""Services of several slots of one machine that write into one folder: what each worker cannot see alone."""

from __future__ import annotations

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import may_be_alive
from emp_orch.fleet.model.fleet import ProgramName
from emp_orch.fleet.model.observed import ConnectorReport, Observed, WorkerReport

_CAUSE = (
    "they take each other's file names, and a start empties temp/ under the others; emp keeps their jobs' files apart"
    " by names of its own, as far as a workflow names its files itself"
)


def shared_folders(machine: DesiredMachine, desired: Desired, observed: Observed) -> list[Drift]:
    """One difference for each service whose slots share a folder, by what their connectors report."""
    if len(machine.workers) < 2:
        return []
    reports = [
        seen.report
        for worker in machine.workers
        if (seen := observed.workers.get(worker)) is not None
        and may_be_alive(seen.seen_ms, machine.id, desired, observed)
    ]
    services = dict.fromkeys(name for report in reports for name in report.connector_statuses)
    return [d for service in services if (d := _shared(machine, service, reports)) is not None]


def _shared(machine: DesiredMachine, service: str, reports: list[WorkerReport]) -> Drift | None:
    # Only per-GPU programs are one for each slot; a service of the machine is the same process for all its workers.
    programs = {r.gpu: machine.program(ProgramName(f"{service}-gpu{r.gpu}")) for r in reports}
    slots = [r for r in reports if programs[r.gpu] is not None and service in r.connector_statuses]
    words = []
    origin = machine.origin
    for what, folder_of in _FOLDERS:
        users: dict[str, list[int]] = {}
        for report in slots:
            if folder := folder_of(report.connector_statuses[service]):
                users.setdefault(folder, []).append(report.gpu)
        for folder, gpus in users.items():
            if len(gpus) > 1:
                words.append(f"slots {', '.join(map(str, sorted(gpus)))} share {what} {folder}")
                program = programs[gpus[0]]
                origin = program.origin if program is not None else origin
    if not words:
        return None
    return Drift(
        kind=Kind.SERVICE_SHARED_FOLDERS,
        machine_id=machine.id,
        subject=f"{machine.id} {service}",
        desired="folders of its own for each slot",
        observed="; ".join(words),
        cause=_CAUSE,
        origin=origin,
    )


def _output(report: ConnectorReport) -> str:
    return report.output_folder


def _temp(report: ConnectorReport) -> str:
    return report.temp_folder


_FOLDERS = (("output", _output), ("temp", _temp))
