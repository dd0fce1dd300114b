"""Why a worker does not connect: does its program run, does it report, as whose, do its services answer."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.control.doctor.checks.machines import log_of, program_of, program_problem, running
from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.model import Check, Group, Level, Problem, count, known
from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.table import BOOT_GRACE_MS, Kind
from emp_orch.fleet.journal.advice import SHARED_FOLDERS
from emp_orch.fleet.model.fleet import WorkerId
from emp_orch.fleet.model.observed import ConnectorStatus, SeenWorker, WorkerStatus


def _machines(facts: Facts) -> list[DesiredMachine]:
    return [facts.desired[i] for i in running(facts)]


def _programs(facts: Facts) -> Iterator[Problem]:
    for machine in _machines(facts):
        for name in machine.workers.values():
            program = machine.program(name)
            if program is not None:
                yield from program_problem(facts, machine, program)


def _reports(facts: Facts) -> Iterator[Problem]:
    """Each worker whose program runs reports, and lately."""
    found = known(facts.difference)
    for machine in _machines(facts):
        for worker_id, name in machine.workers.items():
            info = program_of(facts, machine.id, name)
            if info is None or not info.pid:
                continue
            seen = found.observed.workers.get(worker_id)
            age_ms = None if seen is None else found.observed.now_ms - seen.seen_ms
            if age_ms is not None and age_ms <= found.desired.stale_after_ms:
                continue
            young = facts.now_ms - info.start * 1000 < BOOT_GRACE_MS
            silent = "does not report" if age_ms is None else f"has not reported for {age_ms // 1000} s"
            yield Problem(
                what=f"{worker_id} {silent}, though {name} runs (pid {info.pid});"
                f" its log ends: {log_of(facts, machine.id, name)}",
                fix=f"emp logs machine-{machine.id}/{name}; emp restart {machine.id} {name}",
                where=machine.origin,
                level=Level.WARN if young else Level.FAIL,
            )


def _identity(facts: Facts) -> Iterator[Problem]:
    """Each worker belongs to the machine it is named for, and no other one reports."""
    found = known(facts.difference)
    for drift in (d.drift for d in found.drift):
        if drift.kind is Kind.WORKER_WRONG_MACHINE:
            yield Problem(
                what=f"{drift.subject} reports {drift.observed}",
                fix=f"the reconciler restarts it; emp restart {drift.machine_id} {drift.program}",
                where=drift.origin,
            )
        elif drift.kind is Kind.WORKER_SURPLUS:
            yield Problem(
                what=f"{drift.subject} is {drift.observed}, but {drift.cause}",
                fix="the reconciler forgets it once it is silent; if it goes on, somebody else runs it",
                where=drift.subject,
                level=Level.WARN,
            )


def reporting(facts: Facts) -> list[tuple[DesiredMachine, WorkerId, SeenWorker]]:
    """The workers that are wanted and whose last report is fresh."""
    found = known(facts.difference)
    fresh_ms = found.observed.now_ms - found.desired.stale_after_ms
    seen = [(m, w, found.observed.workers.get(w)) for m in facts.desired.values() for w in m.workers]
    return [(m, w, s) for m, w, s in seen if s is not None and s.seen_ms >= fresh_ms]


def _status(facts: Facts) -> Iterator[Problem]:
    for machine, worker_id, seen in reporting(facts):
        if seen.report.status not in (WorkerStatus.IDLE, WorkerStatus.BUSY):
            program = machine.workers[worker_id]
            failed = seen.report.status is WorkerStatus.ERROR
            yield Problem(
                what=f"{worker_id} is {seen.report.status} and takes no jobs",
                fix=f"emp logs machine-{machine.id}/{program}; emp restart {machine.id} {program}",
                where=machine.origin,
                level=Level.FAIL if failed else Level.WARN,
            )


def _connectors(facts: Facts) -> Iterator[Problem]:
    """Each connector reaches its service."""
    for machine, worker_id, seen in reporting(facts):
        for service, connector in seen.report.connector_statuses.items():
            if connector.status in (ConnectorStatus.ERROR, ConnectorStatus.OFFLINE):
                yield Problem(
                    what=f"{worker_id} cannot use {service} ({connector.status}): {connector.detail or 'no detail'}",
                    fix=f"emp diff; emp logs machine-{machine.id}",
                    where=machine.origin,
                )


def _warnings(facts: Facts) -> Iterator[Problem]:
    """What connectors say of services that work, and what only a look at all of a machine's slots shows."""
    for drift in (d.drift for d in known(facts.difference).drift if d.drift.kind is Kind.SERVICE_SHARED_FOLDERS):
        yield Problem(
            what=f"{drift.subject}: {drift.observed}; {drift.cause}",
            fix=SHARED_FOLDERS,
            where=drift.origin,
            level=Level.WARN,
        )
    for machine, worker_id, seen in reporting(facts):
        for service, connector in seen.report.connector_statuses.items():
            for warning in connector.warnings:
                yield Problem(
                    what=f"{worker_id}, {service}: {warning}",
                    fix="docs/comfyui.md",
                    where=machine.origin,
                    level=Level.WARN,
                )


def _packages(facts: Facts) -> Iterator[Problem]:
    """Each worker runs the package of the generation; else its machine says why not."""
    found = known(facts.difference)
    outdated = {d.drift.subject: d.drift for d in found.drift if d.drift.kind is Kind.WORKER_OUTDATED}
    for machine, worker_id, _ in reporting(facts):
        if (drift := outdated.get(worker_id)) is not None:
            at_work = drift.program is not None
            yield Problem(
                what=f"{worker_id} runs {drift.observed}: {drift.cause}",
                fix="the reconciler restarts it" if at_work else f"emp logs machine-{machine.id}/agent; emp logs api",
                where=machine.origin,
                level=Level.WARN,
            )


def _fine_package(facts: Facts) -> str:
    package = known(facts.difference).desired.package
    return f"their package is {package.short}" if package is not None and reporting(facts) else ""


def _fine_status(facts: Facts) -> str:
    statuses = [str(s.report.status) for _, _, s in reporting(facts)]
    return ", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses)))


def _fine_connectors(facts: Facts) -> str:
    services = sorted({s for _, _, seen in reporting(facts) for s in seen.report.connector_statuses})
    return f"their connectors reach {', '.join(services)}" if services else ""


CHECKS = (
    Check(
        name="worker-programs",
        group=Group.WORKERS,
        fine=lambda f: f"{count([w for m in _machines(f) for w in m.workers], 'worker')} up" if _machines(f) else "",
        find=_programs,
    ),
    Check(
        name="worker-reports",
        group=Group.WORKERS,
        fine=lambda f: f"{count(reporting(f), 'worker')} heard" if reporting(f) else "",
        find=_reports,
    ),
    Check(
        name="worker-identity",
        group=Group.WORKERS,
        fine=lambda f: "each belongs to its machine" if reporting(f) else "",
        find=_identity,
    ),
    Check(name="worker-status", group=Group.WORKERS, fine=_fine_status, find=_status),
    Check(name="connectors", group=Group.WORKERS, fine=_fine_connectors, find=_connectors),
    Check(name="service-folders", group=Group.WORKERS, fine=lambda _: "", find=_warnings),
    Check(
        name="worker-package",
        group=Group.WORKERS,
        fine=_fine_package,
        find=_packages,
    ),
)
