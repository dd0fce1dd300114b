"""Drift inside a machine that reports: its programs, and where those are right, its workers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.drift import exits
from emp_orch.fleet.drift.connectors import connector_drift, store_drift
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.drift.liveness import BOOT_GRACE_MS, NOBODY_WAS_HEARD, age, is_alive, listening_since, may_be_alive
from emp_orch.fleet.model.fleet import MachineId, ProgramName
from emp_orch.fleet.model.observed import (
    MachineReport,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    SeenWorker,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.fleet.model.package import WorkerPackage, in_short

# (kind, id) of each report that cannot be read → when its subject was last heard
Unreadable = dict[tuple[str, str], int]

# A program that ended by itself so often in this time is not getting anywhere; supervisord alone would go on for ever.
FLAPS = 5
FLAP_WINDOW_MS = 120_000


def stopped_meanwhile(machine: DesiredMachine, seen: SeenMachine, observed: Observed) -> list[Drift]:
    """Programs that ran in this start-up and were stopped: its sequence has started them, and would wait for ever."""
    long_ago = {
        name
        for name, got in seen.report.programs.items()
        if got.since_ms and abs(observed.now_ms - got.since_ms) >= BOOT_GRACE_MS
    }
    return [
        d
        for d in program_drift(machine, seen, observed.now_ms)
        if d.kind is Kind.PROGRAM_STOPPED and d.program in long_ago
    ]


def program_drift(machine: DesiredMachine, seen: SeenMachine, now_ms: int) -> list[Drift]:
    found = []
    down: set[ProgramName] = set()
    for program in machine.programs:
        got = seen.report.programs.get(program.name)
        if got is not None and _in_order(program, got):
            continue
        kind, cause = _classify_program(program, got, now_ms)
        waits_for = [name for name in program.after if name in down]
        if kind is not None:
            down.add(program.name)
        if kind is Kind.PROGRAM_STOPPED and waits_for:
            kind, cause = Kind.PROGRAM_WAITING, f"it waits for {', '.join(waits_for)}"
        if kind is not None:
            found.append(
                Drift(
                    kind=kind,
                    machine_id=machine.id,
                    subject=program.name,
                    desired="EXITED 0" if program.kind.once else "RUNNING",
                    observed=_say(program, got),
                    cause=cause,
                    origin=program.origin,
                    program=program.name,
                    began_ms=got.since_ms or None if got else None,
                )
            )
    wanted = {p.name for p in machine.programs}
    found += [
        Drift(
            kind=Kind.PROGRAM_SURPLUS,
            machine_id=machine.id,
            subject=name,
            desired="absent",
            observed=got.state,
            cause="supervisord has a program that this generation does not name",
            origin=machine.origin,
            program=name,
        )
        for name, got in seen.report.programs.items()
        if name not in wanted
    ]
    return found


def _in_order(program: DesiredProgram, got: ProgramReport) -> bool:
    """Whether there is plainly nothing to say of it, as of nearly all programs at nearly all times."""
    if got.state is not ProgramState.RUNNING or got.ends_ms or got.port_taken_by:
        return False
    return program.kind in _STAYING and (got.healthy is True or (got.healthy is None and program.health is None))


_STAYING = (ProgramKind.SERVICE, ProgramKind.WORKER)


def _classify_program(program: DesiredProgram, got: ProgramReport | None, now_ms: int) -> tuple[Kind | None, str]:
    if got is None:
        return Kind.PROGRAM_MISSING, "supervisord does not know it"
    if got.port_taken_by and got.healthy is not True:
        return Kind.PROGRAM_PORT_TAKEN, f"port {program.port} is taken by {got.port_taken_by}"
    if (often := _flaps(program, got, now_ms)) is not None:
        last = f"; the last time it {exits.told(got.last_end)}" if got.last_end else ""
        return Kind.PROGRAM_FLAPPING, f"it ended {often} times in {FLAP_WINDOW_MS // 1000} s{last}"
    gone = exits.why_gone(got)
    match got.state:
        case ProgramState.FATAL:
            return Kind.PROGRAM_FATAL, gone or got.detail or "supervisord gave up after its retries"
        case ProgramState.EXITED if program.kind.once:
            if got.exit_status == 0:
                return None, ""
            return Kind.PROGRAM_FATAL, f"the set-up step {gone or f'exited with status {got.exit_status}'}"
        case ProgramState.RUNNING:
            if program.kind.once:
                return Kind.PROGRAM_STARTING, "the set-up step is running"
            if got.healthy is False:
                return Kind.PROGRAM_UNHEALTHY, _why_unhealthy(program, got)
            if got.healthy is None and program.health is not None:
                met = f": {got.detail}" if got.detail else ""
                return Kind.PROGRAM_STARTING, f"its health check has not passed yet{met}{exits.before(got)}"
            return None, ""
        case ProgramState.STOPPED | ProgramState.EXITED | ProgramState.UNKNOWN:
            why = gone or got.detail
            stopped = "it was stopped" if got.last_end else "it was stopped, or exited and was not restarted"
            return Kind.PROGRAM_STOPPED, why or f"{stopped}{exits.before(got)}"
        case ProgramState.STARTING | ProgramState.BACKOFF | ProgramState.STOPPING:
            why = f"{gone}; it is started again" if gone else got.detail
            return Kind.PROGRAM_STARTING, why or f"supervisord is at it{exits.before(got)}"


def _why_unhealthy(program: DesiredProgram, got: ProgramReport) -> str:
    met = got.detail or "its health check fails"
    if program.health is not None and not got.never_healthy and got.detail:
        return f"its health check failed {program.health.failures} times or more: {met}"
    if not got.never_healthy or program.health is None:
        return met
    within = f"{program.health.startup_s:g} s"
    return f"still starting after {within}: raise health.startup if it needs longer; so far: {met}{exits.before(got)}"


def _flaps(program: DesiredProgram, got: ProgramReport, now_ms: int) -> int | None:
    """How often it ended lately, when that is too often and supervisord would start it again."""
    if (
        not got.ends_ms
        or program.kind.once
        or got.state in (ProgramState.STOPPED, ProgramState.FATAL, ProgramState.STOPPING)
    ):
        return None
    often = sum(abs(now_ms - at) < FLAP_WINDOW_MS for at in got.ends_ms)
    return often if often >= FLAPS else None


def _say(program: DesiredProgram | None, got: ProgramReport | None) -> str:
    if got is None:
        return "absent"
    if got.state is ProgramState.EXITED:
        return f"EXITED {got.exit_status}"
    if got.healthy is False:
        return f"{got.state}, unhealthy"
    probed = program is not None and program.health is not None and got.state is ProgramState.RUNNING
    return f"{got.state}, not healthy yet" if probed and got.healthy is None else got.state


def worker_drift(
    machine: DesiredMachine,
    seen: SeenMachine,
    desired: Desired,
    observed: Observed,
    unreadable: Unreadable,
    ill: Collection[ProgramName] = (),
) -> list[Drift]:
    """Workers of a machine, and how they find their services. `ill`: programs of which something is said already."""
    found: list[Drift] = []
    for wid, name in machine.workers.items():
        if name in ill:
            continue
        worker = observed.workers.get(wid)
        program = seen.report.programs[name]
        unread_ms = unreadable.get(("worker", wid))
        if unread_ms is None:
            kind, got, cause = _classify_worker(machine, seen, worker, program, desired, observed)
        else:
            kind, got, cause = _classify_silence(unread_ms, machine.id, program, desired, observed)
        if kind is not None:
            found.append(
                Drift(
                    kind=kind,
                    machine_id=machine.id,
                    subject=wid,
                    desired="idle or busy",
                    observed=got,
                    cause=cause,
                    origin=machine.origin,
                    # A restart only helps where the package is there.
                    program=None if kind is Kind.WORKER_OUTDATED and not _has_package(desired, seen) else name,
                )
            )
        elif worker is not None and unread_ms is None:
            found += connector_drift(machine, wid, worker.report, ill)
            found += store_drift(machine, wid, worker.report)
    return found


_Verdict = tuple[Kind | None, str, str]


def _classify_worker(
    machine: DesiredMachine,
    seen: SeenMachine,
    worker: SeenWorker | None,
    program: ProgramReport,
    desired: Desired,
    observed: Observed,
) -> _Verdict:
    if worker is None:
        if _young(program, machine.id, observed):
            return Kind.WORKER_STARTING, "not reporting", _why_young(program, observed)
        return Kind.WORKER_MISSING, "not reporting", "its program runs, but the worker does not report"
    if _is_former(worker.report, program) and _young(program, machine.id, observed):
        return Kind.WORKER_STARTING, "not heard since its restart", _why_young(program, observed)
    kind, got, cause = _classify_silence(worker.seen_ms, machine.id, program, desired, observed)
    if kind is not None:
        return kind, got, cause
    if worker.report.machine_id != machine.id:
        return Kind.WORKER_WRONG_MACHINE, f"of machine {worker.report.machine_id}", "it was started for another machine"
    if desired.package is not None and worker.report.package not in ("", desired.package.digest):
        return Kind.WORKER_OUTDATED, in_short(worker.report.package), _why_outdated(desired.package, seen.report)
    if machine.capabilities and (lacking := _lacking(machine.capabilities, worker.report.capabilities)):
        return Kind.WORKER_WRONG_CAPABILITIES, f"other {lacking}", "it was started with other capabilities"
    if worker.report.status in (WorkerStatus.INITIALIZING, WorkerStatus.OFFLINE):
        return Kind.WORKER_STARTING, worker.report.status, "it is starting"
    return None, "", ""


def _has_package(desired: Desired, seen: SeenMachine) -> bool:
    """Whether the workers of this machine would start from the package that is desired."""
    return desired.package is not None and seen.report.package == desired.package.digest


def _why_outdated(package: WorkerPackage, report: MachineReport) -> str:
    if report.package == package.digest:
        return f"its machine has {package.short}"
    if report.package_error:
        return f"its machine cannot take over {package.short}: {report.package_error}"
    return f"its machine does not have {package.short} yet"


def _is_former(report: WorkerReport, program: ProgramReport) -> bool:
    """Whether the report is another process' than the program's. Times do not tell: supervisord's are whole seconds."""
    return report.pid != 0 and program.pid != 0 and report.pid != program.pid


def _lacking(asked: dict[str, Any], reported: dict[str, Any]) -> str:
    """Names of the capabilities of emp.yaml that a worker does not report so. Its hardware is its own finding, too."""
    return ", ".join(sorted(k for k, v in asked.items() if k != "hardware" and reported.get(k) != v))


def _classify_silence(
    seen_ms: int, machine_id: MachineId, program: ProgramReport, desired: Desired, observed: Observed
) -> _Verdict:
    """What can be said of a worker from when it was last heard, whatever it said."""
    if seen_ms < program.since_ms and _young(program, machine_id, observed):
        return Kind.WORKER_STARTING, "not heard since its restart", _why_young(program, observed)
    if is_alive(seen_ms, desired, observed):
        return None, "", ""
    silent = f"silent for {age(observed.now_ms - seen_ms)}"
    if may_be_alive(seen_ms, machine_id, desired, observed):
        return Kind.WORKER_STARTING, silent, NOBODY_WAS_HEARD
    return Kind.WORKER_STALE, silent, "it hangs"


def _why_young(program: ProgramReport, observed: Observed) -> str:
    started = abs(observed.now_ms - program.since_ms) < BOOT_GRACE_MS
    return "its program has just been started" if started else NOBODY_WAS_HEARD


def _young(program: ProgramReport, machine_id: MachineId, observed: Observed) -> bool:
    # A start in the future was told by a clock that has been set back since.
    began_ms = (program.since_ms, *listening_since(machine_id, observed))
    return any(abs(observed.now_ms - at) < BOOT_GRACE_MS for at in began_ms)
