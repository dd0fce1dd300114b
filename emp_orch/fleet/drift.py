"""Desired against observed: what differs, as an ordered table of kinds; the first that matches a subject wins.

| kind | subject | when | leads to |
|---|---|---|---|
| report-malformed | machine, worker | its report does not fit its type | nothing: shown |
| machine-missing | machine | not reported (or long ago) and its runtime says it does not run | start it |
| machine-booting | machine | its runtime says it runs, but too short a time to have reported | nothing yet |
| machine-stale | machine | runs, but has not reported for stale_after | restart it |
| machine-unreachable | machine | stale, and no runtime here can tell whether it runs | nothing: unknown stops nothing |
| config-behind | machine | reports another configuration than desired | send the configuration |
| machine-starting | machine | start-up sequence under way | nothing yet |
| generation-behind | machine | same configuration, older generation number | send the configuration |
| program-missing | program | desired, but supervisord has no such program | send the configuration |
| program-fatal | program | FATAL, or a set-up step that failed | start it |
| program-waiting | program | STOPPED, and a program it starts after is not up | nothing yet |
| program-stopped | program | STOPPED or EXITED | start it |
| program-starting | program | STARTING, BACKOFF or STOPPING: supervisord is at it | nothing yet |
| program-unhealthy | program | RUNNING, health check failing | restart it |
| program-surplus | program | reported, not desired | send the configuration |
| worker-wrong-machine | worker | reports another machine than its id says | restart its program |
| worker-missing | worker | its program runs, but it does not report | restart its program |
| worker-stale | worker | reported before, not for stale_after | restart its program |
| worker-starting | worker | its program has not run long enough to judge, or it says initializing | nothing yet |
| worker-surplus | worker | reports, but is not desired | forget it once it is silent |
| machine-surplus | machine | runs or reports, not desired | stop and forget it, when pruning |
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from emp_orch.fleet.desired import DesiredMachine, DesiredProgram, config_hash
from emp_orch.fleet.model import MachineId, Origin, ProgramName, WorkerId
from emp_orch.fleet.observed import (
    Instance,
    InstanceState,
    MachineStatus,
    Observed,
    ProgramReport,
    ProgramState,
    SeenMachine,
    SeenWorker,
    WorkerStatus,
)

# How long a machine or worker may take from its process' start to its first report.
BOOT_GRACE_MS = 30_000


class Kind(StrEnum):
    REPORT_MALFORMED = "report-malformed"
    MACHINE_MISSING = "machine-missing"
    MACHINE_BOOTING = "machine-booting"
    MACHINE_STALE = "machine-stale"
    MACHINE_UNREACHABLE = "machine-unreachable"
    CONFIG_BEHIND = "config-behind"
    MACHINE_STARTING = "machine-starting"
    GENERATION_BEHIND = "generation-behind"
    PROGRAM_MISSING = "program-missing"
    PROGRAM_FATAL = "program-fatal"
    PROGRAM_WAITING = "program-waiting"
    PROGRAM_STOPPED = "program-stopped"
    PROGRAM_STARTING = "program-starting"
    PROGRAM_UNHEALTHY = "program-unhealthy"
    PROGRAM_SURPLUS = "program-surplus"
    WORKER_WRONG_MACHINE = "worker-wrong-machine"
    WORKER_MISSING = "worker-missing"
    WORKER_STALE = "worker-stale"
    WORKER_STARTING = "worker-starting"
    WORKER_SURPLUS = "worker-surplus"
    MACHINE_SURPLUS = "machine-surplus"


class Drift(Struct, frozen=True, kw_only=True):
    """One difference. `subject` is a machine, program or worker id; `origin` the line of emp.yaml it comes from.

    `seen_ms` is the subject's last report when that matters for acting on it (surplus workers).
    """

    kind: Kind
    machine_id: MachineId
    subject: str
    desired: str
    observed: str
    cause: str
    origin: Origin
    program: ProgramName | None = None
    seen_ms: int | None = None

    @property
    def key(self) -> str:
        """Identifies the same drift across ticks."""
        return f"{self.kind}/{self.machine_id}/{self.subject}"


class Desired(Struct, frozen=True, kw_only=True):
    """One generation, ready to compare."""

    generation: int
    machines: dict[MachineId, DesiredMachine]
    stale_after_ms: int
    max_unavailable: int
    prune: bool


def diff(desired: Desired, observed: Observed) -> tuple[Drift, ...]:
    """Every difference, machines in the order of emp.yaml, then what is surplus."""
    found: list[Drift] = [_malformed(m.kind, m.id, m.error) for m in observed.malformed]
    unreadable = {m.id for m in observed.malformed}
    for machine in desired.machines.values():
        if machine.id not in unreadable:
            found += _machine_drift(machine, desired, observed, unreadable)
    found += _surplus_workers(desired, observed)
    found += _surplus_machines(desired, observed)
    return tuple(found)


def _malformed(kind: str, subject: str, error: str) -> Drift:
    machine = subject if kind == "machine" else subject.rpartition("-worker-")[0]
    return Drift(
        kind=Kind.REPORT_MALFORMED,
        machine_id=MachineId(machine),
        subject=subject,
        desired="a report that fits",
        observed=error,
        cause=f"something else than emp {kind}s wrote it, or another version of emp",
        origin="",
    )


def _fresh(seen_ms: int, desired: Desired, observed: Observed) -> bool:
    """Whether a subject last seen at `seen_ms` may be taken as alive."""
    heard_ms = max(seen_ms, observed.observing_since_ms)
    return observed.now_ms - heard_ms <= desired.stale_after_ms


def _age(ms: int) -> str:
    return f"{ms / 1000:.0f} s"


def _machine_drift(machine: DesiredMachine, desired: Desired, observed: Observed, unreadable: set[str]) -> list[Drift]:
    seen = observed.machines.get(machine.id)
    instance = observed.instances.get(machine.id)
    if instance is None and machine.runtime in observed.answered:
        instance = Instance(machine_id=machine.id, state=InstanceState.GONE, detail="it was never started")
    whole = _whole_machine(machine, seen, instance, desired, observed)
    if whole is not None:
        return [whole]
    if seen is None:
        return []
    programs = _program_drift(machine, seen)
    workers = [] if programs else _worker_drift(machine, seen, desired, observed, unreadable)
    return programs + workers


def _whole_machine(
    machine: DesiredMachine,
    seen: SeenMachine | None,
    instance: Instance | None,
    desired: Desired,
    observed: Observed,
) -> Drift | None:
    """Drift of the machine as a whole, which hides all that is inside it."""

    def drift(kind: Kind, want: str, got: str, cause: str) -> Drift:
        return Drift(
            kind=kind,
            machine_id=machine.id,
            subject=machine.id,
            desired=want,
            observed=got,
            cause=cause,
            origin=machine.origin,
            seen_ms=seen.seen_ms if seen else None,
        )

    state = instance.state if instance else InstanceState.UNKNOWN
    if state is InstanceState.GONE:
        detail = instance.detail if instance else ""
        return drift(Kind.MACHINE_MISSING, "running", "not running", detail or "its supervisord does not run")
    if seen is None or not _fresh(seen.seen_ms, desired, observed):
        silent = "has never reported" if seen is None else f"last report {_age(observed.now_ms - seen.seen_ms)} ago"
        if instance is None or state is InstanceState.UNKNOWN:
            why = instance.detail if instance and instance.detail else "no runtime here can tell whether it runs"
            return drift(Kind.MACHINE_UNREACHABLE, "reporting", silent, why)
        if observed.now_ms - instance.started_ms < BOOT_GRACE_MS:
            return drift(Kind.MACHINE_BOOTING, "reporting", silent, "its supervisord has just been started")
        return drift(Kind.MACHINE_STALE, "reporting", silent, "its agent hangs or cannot reach Redis")
    report = seen.report
    wanted = config_hash(machine)
    if report.config_hash != wanted:
        got = f"{report.config_hash or 'none'} (generation {report.generation})"
        return drift(Kind.CONFIG_BEHIND, f"{wanted} (generation {desired.generation})", got, "configuration changed")
    if report.status in (MachineStatus.STARTING, MachineStatus.CONFIGURING):
        if not report.error:
            return drift(Kind.MACHINE_STARTING, "ready", report.status, "its start-up sequence is under way")
    elif report.status is not MachineStatus.READY:
        return drift(Kind.MACHINE_STARTING, "ready", report.status, f"the machine is {report.status}")
    if report.generation < desired.generation:
        return drift(
            Kind.GENERATION_BEHIND,
            f"generation {desired.generation}",
            f"generation {report.generation}",
            "a newer generation was applied; nothing it runs has changed",
        )
    return None


def _program_drift(machine: DesiredMachine, seen: SeenMachine) -> list[Drift]:
    found = []
    down: set[ProgramName] = set()
    for program in machine.programs:
        got = seen.report.programs.get(program.name)
        kind, cause = _classify_program(program, got)
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
                    observed=_say(got),
                    cause=cause,
                    origin=program.origin,
                    program=program.name,
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


def _classify_program(program: DesiredProgram, got: ProgramReport | None) -> tuple[Kind | None, str]:
    if got is None:
        return Kind.PROGRAM_MISSING, "supervisord does not know it"
    match got.state:
        case ProgramState.FATAL:
            return Kind.PROGRAM_FATAL, got.detail or "supervisord gave up after its retries"
        case ProgramState.EXITED if program.kind.once:
            if got.exit_status == 0:
                return None, ""
            return Kind.PROGRAM_FATAL, f"the set-up step exited with {got.exit_status}"
        case ProgramState.RUNNING:
            if program.kind.once:
                return Kind.PROGRAM_STARTING, "the set-up step is running"
            if got.healthy is False:
                return Kind.PROGRAM_UNHEALTHY, got.detail or "its health check fails"
            if got.healthy is None and program.health is not None:
                return Kind.PROGRAM_STARTING, "its health check has not passed yet"
            return None, ""
        case ProgramState.STOPPED | ProgramState.EXITED | ProgramState.UNKNOWN:
            return Kind.PROGRAM_STOPPED, got.detail or "it was stopped, or exited and was not restarted"
        case ProgramState.STARTING | ProgramState.BACKOFF | ProgramState.STOPPING:
            return Kind.PROGRAM_STARTING, got.detail or "supervisord is at it"


def _say(got: ProgramReport | None) -> str:
    if got is None:
        return "absent"
    if got.state is ProgramState.EXITED:
        return f"EXITED {got.exit_status}"
    return f"{got.state}, unhealthy" if got.healthy is False else got.state


def _worker_drift(
    machine: DesiredMachine, seen: SeenMachine, desired: Desired, observed: Observed, unreadable: set[str]
) -> list[Drift]:
    found = []
    for wid, name in machine.workers.items():
        if wid in unreadable:
            continue
        worker = observed.workers.get(wid)
        program = seen.report.programs[name]
        kind, got, cause = _classify_worker(machine.id, worker, program, desired, observed)
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
                    program=name,
                )
            )
    return found


def _classify_worker(
    machine_id: MachineId, worker: SeenWorker | None, program: ProgramReport, desired: Desired, observed: Observed
) -> tuple[Kind | None, str, str]:
    young = observed.now_ms - max(program.since_ms, observed.observing_since_ms) < BOOT_GRACE_MS
    if worker is None:
        if young:
            return Kind.WORKER_STARTING, "no report", "its program has just been started"
        return Kind.WORKER_MISSING, "no report", "its program runs, but the worker does not report"
    if worker.report.machine_id != machine_id:
        return Kind.WORKER_WRONG_MACHINE, f"machine {worker.report.machine_id}", "it was started for another machine"
    if worker.seen_ms < program.since_ms and young:
        return Kind.WORKER_STARTING, "not heard since its restart", "its program has just been started"
    if not _fresh(worker.seen_ms, desired, observed):
        return Kind.WORKER_STALE, f"last report {_age(observed.now_ms - worker.seen_ms)} ago", "it hangs"
    if worker.report.status in (WorkerStatus.INITIALIZING, WorkerStatus.OFFLINE):
        return Kind.WORKER_STARTING, worker.report.status, "it is starting"
    return None, "", ""


def _surplus_workers(desired: Desired, observed: Observed) -> list[Drift]:
    wanted: set[WorkerId] = {w for m in desired.machines.values() for w in m.workers}
    found = []
    for wid, worker in observed.workers.items():
        machine_id = worker.report.machine_id
        # A machine that is itself surplus takes its workers with it.
        foreign = machine_id not in desired.machines and machine_id in observed.machines
        if wid in wanted or foreign:
            continue
        silent = not _fresh(worker.seen_ms, desired, observed)
        found.append(
            Drift(
                kind=Kind.WORKER_SURPLUS,
                machine_id=machine_id,
                subject=wid,
                desired="absent",
                observed="silent" if silent else worker.report.status,
                cause="it ended without taking its report away" if silent else "no GPU slot of this fleet has it",
                origin="",
                seen_ms=worker.seen_ms if silent else None,
            )
        )
    return found


def _surplus_machines(desired: Desired, observed: Observed) -> list[Drift]:
    known = {*observed.machines, *(i for i, n in observed.instances.items() if n.state is InstanceState.RUNNING)}
    found = []
    for machine_id in sorted(known - set(desired.machines)):
        seen = observed.machines.get(machine_id)
        found.append(
            Drift(
                kind=Kind.MACHINE_SURPLUS,
                machine_id=machine_id,
                subject=machine_id,
                desired="absent",
                observed=seen.report.status if seen and _fresh(seen.seen_ms, desired, observed) else "silent",
                cause="emp.yaml does not name it" + ("" if desired.prune else "; `emp apply --prune` removes it"),
                origin="",
                seen_ms=seen.seen_ms if seen else None,
            )
        )
    return found
