"""Drift between a worker that is right and its services: what its connectors say of them."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram
from emp_orch.fleet.drift.kinds import Drift, Kind
from emp_orch.fleet.drift.slots import service_program
from emp_orch.fleet.model.fleet import ProgramName, WorkerId
from emp_orch.fleet.model.observed import ConnectorReport, ConnectorStatus, Occupant, WorkerReport

_BAD = (ConnectorStatus.ERROR, ConnectorStatus.OFFLINE)
_OCCUPIED = {Occupant.STUCK: Kind.SERVICE_STUCK, Occupant.FOREIGN: Kind.SERVICE_OCCUPIED}


def connector_drift(
    machine: DesiredMachine, worker: WorkerId, report: WorkerReport, ill: Collection[ProgramName] = ()
) -> list[Drift]:
    """Each service that does not answer the worker, or is kept from its jobs; but for `ill` programs, told already."""
    found: list[Drift] = []
    for service, connector in report.connector_statuses.items():
        bad = connector.status in _BAD
        if not bad and connector.occupant not in _OCCUPIED:
            continue
        program = service_program(machine, service, report.gpu)
        if program is not None and program.name in ill:
            continue
        told = _unwell(service, connector, report) if bad else _kept(connector)
        found.append(_drift(machine, f"{worker} {service}", program, *told))
    return found


def store_drift(machine: DesiredMachine, worker: WorkerId, report: WorkerReport) -> list[Drift]:
    """What keeps the worker from saving what jobs make."""
    if not report.store_error:
        return []
    told = (Kind.STORE_BROKEN, "takes no jobs", report.store_error, None)
    return [structs.replace(_drift(machine, worker, None, *told), desired="outputs saved")]


_Told = tuple[Kind, str, str, int | None]


def _unwell(service: str, connector: ConnectorReport, report: WorkerReport) -> _Told:
    kind = Kind.CONNECTOR_BROKEN if service in report.unloaded else Kind.CONNECTOR_UNHEALTHY
    return kind, connector.status, connector.detail or "it does not say why", None


def _kept(connector: ConnectorReport) -> _Told:
    kind = Kind.SERVICE_OCCUPIED if connector.occupant is None else _OCCUPIED[connector.occupant]
    words = f"it is at {connector.occupied_by}"
    return kind, "stuck" if kind is Kind.SERVICE_STUCK else "occupied", words, connector.occupied_ms or None


def _drift(
    machine: DesiredMachine,
    subject: str,
    program: DesiredProgram | None,
    kind: Kind,
    observed: str,
    cause: str,
    began_ms: int | None,
) -> Drift:
    acts = program is not None and kind is not Kind.SERVICE_OCCUPIED
    return Drift(
        kind=kind,
        machine_id=machine.id,
        subject=subject,
        desired="idle or active",
        observed=observed,
        cause=cause,
        origin=program.origin if program else machine.origin,
        program=program.name if program is not None and acts else None,
        began_ms=began_ms,
    )
