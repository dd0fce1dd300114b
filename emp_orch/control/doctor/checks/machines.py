"""Why a machine is not in the state: does it run, does it report, what does it wait for, which Redis does it use."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from emp_orch import __version__
from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.facts.logs import last_line
from emp_orch.control.doctor.facts.redis import BOOT_EVENTS
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem, count, known
from emp_orch.control.status.inspect import Difference
from emp_orch.fleet.desired.values import DesiredMachine, DesiredProgram, ProgramKind
from emp_orch.fleet.drift.exits import told
from emp_orch.fleet.drift.table import BOOT_GRACE_MS, Kind
from emp_orch.fleet.model.fleet import AGENT, MachineId, ProgramName
from emp_orch.fleet.model.observed import InstanceState, MachineStatus, ProgramReport, SeenMachine
from emp_orch.host.ports import Holder
from emp_orch.marks import SUPERVISORD
from emp_orch.runtimes.process.supervisor import ProcessInfo
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.redis.client import address, redacted

STOPPED = ("STOPPED", "EXITED", "FATAL", "BACKOFF", "UNKNOWN")


def _logs(machine_id: str, program: str = "") -> str:
    return f"emp logs machine-{machine_id}{f'/{program}' if program else ''}"


def log_of(facts: Facts, machine_id: str, program: str) -> str:
    """The last words of one of a machine's programs."""
    return last_line(facts.layout.logs / f"machine-{machine_id}" / f"{program}.log")


def _run(facts: Facts) -> Iterator[Problem]:
    known(facts.settings)
    plane = "the reconciler starts it again; emp logs reconcile" if facts.supervisord else "emp apply"
    for machine_id, machine in facts.desired.items():
        if not machine.traits.seen:
            continue  # nobody here sees whether it runs: its report tells
        instance = facts.instances.get(machine_id)
        if instance is not None and instance.state is InstanceState.UNKNOWN:
            yield Problem(
                what=f"unknown whether {machine_id} runs: {instance.detail or 'its runtime does not say'}",
                fix="nothing is done to it until that is known",
                where=machine_id,
                level=Level.WARN,
            )
            continue
        if instance is None or instance.state is InstanceState.GONE:
            detail = instance.detail if instance and instance.detail else "it was never started"
            yield Problem(what=f"{machine_id} does not run: {detail}", fix=plane, where=machine_id)
            continue
        programs = facts.machines[machine_id].programs if machine_id in facts.machines else None
        if isinstance(programs, Unknown):
            yield Problem(
                what=f"the supervisord of {machine_id} (pid {instance.pid}) does not answer: {programs.reason}",
                fix=f"emp restart {machine_id}; {_logs(machine_id)}",
                where=machine_id,
            )


def _report(facts: Facts) -> Iterator[Problem]:
    """Each machine that runs has reported, and lately."""
    found = known(facts.difference)
    for malformed in found.observed.malformed:
        yield Problem(
            what=f"the report of {malformed.kind} {malformed.id} does not fit: {malformed.error}",
            fix="another program writes into this Redis, or another version of emp: use redis.prefix, or upgrade",
            where=malformed.id,
        )
    for machine_id in running(facts):
        seen = found.observed.machines.get(machine_id)
        age_ms = None if seen is None else found.observed.now_ms - seen.seen_ms
        if age_ms is not None and age_ms <= found.desired.stale_after_ms:
            continue
        young = facts.now_ms - facts.instances[machine_id].started_ms < BOOT_GRACE_MS
        silent = "has not reported" if age_ms is None else f"has not reported for {age_ms // 1000} s"
        yield Problem(
            what=f"{machine_id} runs but {silent}: {_why_silent(facts, machine_id)}",
            fix=f"wait: it has just been started; {_logs(machine_id, AGENT)}"
            if young
            else f"{_logs(machine_id, AGENT)}; emp restart {machine_id}",
            where=machine_id,
            level=Level.WARN if young else Level.FAIL,
        )
    yield from _boxes(facts, found)


def _boxes(facts: Facts, found: Difference) -> Iterator[Problem]:
    """Machines that join by themselves: only they can tell whether they run."""
    for machine_id, machine in facts.desired.items():
        if not machine.traits.seen and not is_fresh(found, machine_id):
            seen = found.observed.machines.get(machine_id)
            silent = f"has not reported for {(found.observed.now_ms - seen.seen_ms) // 1000} s" if seen else ""
            yield Problem(
                what=f"{machine_id} {silent or 'has not joined yet'}: emp cannot start a box of its own",
                fix=f"start it where it is; `emp machine join {machine_id}` prints the line",
                where=machine.origin,
                level=Level.FAIL if seen else Level.WARN,
            )


def _why_silent(facts: Facts, machine_id: MachineId) -> str:
    if machine_id not in facts.machines:
        return f"its agent's log ends: {log_of(facts, machine_id, AGENT)}"
    agent = program_of(facts, machine_id, AGENT)
    if agent is None:
        return "its supervisord does not tell of the agent"
    return f"its agent is {agent.statename}; its log ends: {log_of(facts, machine_id, AGENT)}"


def _status(facts: Facts) -> Iterator[Problem]:
    """Each machine that reports is ready, with the configuration in force."""
    found = known(facts.difference)
    behind = {
        d.drift.machine_id: d.drift for d in found.drift if d.drift.kind in (Kind.CONFIG_BEHIND, Kind.GENERATION_BEHIND)
    }
    for machine_id, seen in reporting(facts):
        report = seen.report
        if report.status is not MachineStatus.READY:
            yield Problem(
                what=f"{machine_id} is {report.status}{f': {report.error}' if report.error else ''}",
                fix=f"emp diff; {_logs(machine_id)}",
                where=machine_id,
                level=Level.FAIL if report.error else Level.WARN,
            )
        if machine_id in behind:
            drift = behind[machine_id]
            yield Problem(
                what=f"{machine_id} runs {drift.observed}, wanted is {drift.desired}",
                fix=f"the reconciler sends it; {_logs(machine_id, AGENT)}",
                where=drift.origin,
                level=Level.WARN,
            )


def _boot_events(facts: Facts) -> Iterator[Problem]:
    """The start-up events of each ready machine are in the stream, unless they fell out of it."""
    redis = known(facts.redis)
    for machine_id, seen in reporting(facts):
        kept = redis.oldest_event_ms and redis.oldest_event_ms <= seen.report.started_ms
        missing = BOOT_EVENTS - redis.boots.get(machine_id, frozenset())
        if kept and missing and seen.report.status is MachineStatus.READY:
            yield Problem(
                what=f"{machine_id} is ready, but its events {', '.join(sorted(missing))} are not in the stream",
                fix=f"emp restart {machine_id} publishes them anew; {_logs(machine_id, AGENT)}",
                where=machine_id,
                level=Level.WARN,
            )


def _programs(facts: Facts) -> Iterator[Problem]:
    """Each program does what it is there for. Workers have a check of their own."""
    for machine_id, machine in facts.desired.items():
        if facts.machine_is_alive(machine_id):
            for program in machine.programs:
                if program.kind is not ProgramKind.WORKER:
                    yield from program_problem(facts, machine, program)


def program_problem(facts: Facts, machine: DesiredMachine, program: DesiredProgram) -> Iterator[Problem]:
    """What is wrong with one program, as its own supervisord and its health check say."""
    seen = _seen(facts, machine.id, program.name)
    if seen is None:
        if machine.id in facts.machines and not isinstance(facts.machines[machine.id].programs, Unknown):
            yield Problem(
                what=f"{program.name} is unknown to the supervisord of {machine.id}",
                fix="emp diff; the reconciler sends the configuration anew",
                where=program.origin,
            )
        return
    ended_well = program.kind.once and seen.state == "EXITED" and seen.exit_status == 0
    if seen.state in STOPPED and not ended_well:
        code = f" with {seen.exit_status}" if seen.state == "EXITED" else ""
        waits = [n for n in program.after if not _is_up(facts, machine, n)]
        why = (
            f"it waits for {', '.join(waits)}"
            if waits and seen.state == "STOPPED"
            else _why(facts, machine.id, program.name) or seen.said or "its machine has not told why"
        )
        yield Problem(
            what=f"{program.name} on {machine.id} is {seen.state}{code}; {why}",
            fix=f"{_logs(machine.id, program.name)}; emp restart {machine.id} {program.name}",
            where=program.origin,
        )
        return
    report = reported_program(facts, machine.id, program.name)
    if seen.state == "STARTING" and report is not None and report.last_end is not None:
        yield Problem(
            what=f"{program.name} on {machine.id} is STARTING; before that it {_why(facts, machine.id, program.name)}",
            fix=f"{_logs(machine.id, program.name)}; emp restart {machine.id} {program.name}",
            where=program.origin,
            level=Level.WARN,
        )
        return
    if report is not None and report.healthy is False:
        yield Problem(
            what=f"{program.name} on {machine.id} runs, but its health check fails: {report.detail or 'no detail'}",
            fix=f"{_logs(machine.id, program.name)}; emp restart {machine.id} {program.name}",
            where=program.origin,
        )


def _why(facts: Facts, machine_id: MachineId, name: ProgramName) -> str:
    """How it ended, as its machine tells; where that is silent, the end of its log."""
    report = reported_program(facts, machine_id, name)
    if report is not None and report.last_end is not None:
        rest = report.last_end.lines if len(report.last_end.lines) > 1 else ()
        return "\n".join([told(report.last_end), *(f"| {line}" for line in rest)])
    return f"its log ends: {log_of(facts, machine_id, name)}" if machine_id in facts.machines else ""


class _Seen(Struct, frozen=True):
    """A program's state. `said`: what its supervisord has to say of it."""

    state: str
    exit_status: int | None
    said: str


def _seen(facts: Facts, machine_id: MachineId, name: ProgramName) -> _Seen | None:
    """What its supervisord says of it; of a machine that this host does not see into, what that reports."""
    if (info := program_of(facts, machine_id, name)) is not None:
        return _Seen(info.statename, info.exitstatus, info.said)
    if machine_id in facts.machines or isinstance(facts.difference, Unknown):
        return None
    report = reported_program(facts, machine_id, name) if is_fresh(facts.difference, machine_id) else None
    return None if report is None else _Seen(report.state, report.exit_status, report.detail)


def _is_up(facts: Facts, machine: DesiredMachine, name: ProgramName) -> bool:
    seen = _seen(facts, machine.id, name)
    return seen is not None and (seen.state == "RUNNING" or (seen.state == "EXITED" and seen.exit_status == 0))


def _ports(facts: Facts) -> Iterator[Problem]:
    """Each service's port is its own. Nobody on a port is for the health check to say; others than processes of this
    host have ports of their own."""
    for machine in (m for m in facts.desired.values() if m.traits.shares_host):
        for program in machine.programs:
            holder = facts.holders.get(program.port or 0)
            info = program_of(facts, machine.id, program.name)
            if holder is None or not holder.pid or holder.belongs_to(info.pid if info else 0):
                continue
            if any(o.pid in (holder.pid, holder.group) for o in facts.orphans):
                continue
            if _began(facts, holder, machine, program):
                continue
            yield Problem(
                what=f"port {program.port} of {program.name} on {machine.id} is taken by {holder}",
                fix="stop that process, or set another port in emp.yaml and run emp apply",
                where=program.origin,
            )


def _began(facts: Facts, holder: Holder, machine: DesiredMachine, program: DesiredProgram) -> bool:
    """Whether `program` began it, whatever it did since. Of one that wiped its environment its supervisord is known."""
    mark = facts.begun.get(holder.pid)
    return mark is not None and mark.machine == machine.id and mark.program in (program.name, SUPERVISORD)


def _environments(facts: Facts) -> Iterator[Problem]:
    """Every emp process of a machine was started with the Redis of today."""
    wanted = known(facts.settings).machine_redis_url
    place = address(wanted)
    for machine_id, machine in facts.machines.items():
        wrong = {name: url for name, url in machine.environments.items() if address(url) != place}
        for name, url in wrong.items():
            yield Problem(
                what=f"{name} of {machine_id} uses Redis {redacted(url) if url else 'of no HUB_REDIS_URL'},"
                f" not {redacted(wanted)}",
                fix=f"emp restart {machine_id}",
                where=machine_id,
            )


def _versions(facts: Facts) -> Iterator[Problem]:
    for machine_id, seen in reporting(facts):
        if seen.report.agent_version != __version__:
            yield Problem(
                what=f"the agent of {machine_id} is of emp {seen.report.agent_version}, this is emp {__version__}",
                fix=f"emp restart {machine_id}",
                where=machine_id,
                level=Level.WARN,
            )


def _apart(facts: Facts) -> Iterator[Problem]:
    """Services of a container do not read its login, its key, or the secrets of the services beside them."""
    for machine_id, seen in reporting(facts):
        if seen.report.together:
            yield Problem(
                what=f"services of {machine_id} can read its secrets and change its programs: {seen.report.together}",
                fix="Linux 5.19 or later with Landlock, and an engine that allows it; docs/security.md",
                where=machine_id,
                level=Level.WARN,
            )


def _fine_apart(facts: Facts) -> str:
    apart = [i for i, _ in reporting(facts) if facts.desired[i].traits.in_container]
    return f"services of {count(apart, 'container')} are kept apart from its secrets" if apart else ""


def running(facts: Facts) -> list[MachineId]:
    """The desired machines that live."""
    return [i for i in facts.desired if facts.machine_is_alive(i)]


def reporting(facts: Facts) -> list[tuple[MachineId, SeenMachine]]:
    """The desired machines whose last report is fresh. Raises Cannot without Redis."""
    found = known(facts.difference)
    return [(i, found.observed.machines[i]) for i in facts.desired if is_fresh(found, i)]


def is_fresh(found: Difference, machine_id: MachineId) -> bool:
    """Whether the machine reported lately."""
    seen = found.observed.machines.get(machine_id)
    return seen is not None and abs(found.observed.now_ms - seen.seen_ms) <= found.desired.stale_after_ms


def program_of(facts: Facts, machine_id: MachineId, name: str) -> ProcessInfo | None:
    """What its supervisord says of a program; None when that does not answer or does not know it."""
    machine = facts.machines.get(machine_id)
    if machine is None or isinstance(machine.programs, Unknown):
        return None
    return next((i for i in machine.programs if i.name == name), None)


def reported_program(facts: Facts, machine_id: MachineId, name: ProgramName) -> ProgramReport | None:
    """What the machine's last report says of a program."""
    if isinstance(facts.difference, Unknown):
        return None
    seen = facts.difference.observed.machines.get(machine_id)
    return seen.report.programs.get(name) if seen else None


def _fine_run(facts: Facts) -> str:
    ours = [m for m in facts.desired.values() if m.traits.seen]
    return f"{len(running(facts))} of {count(ours, 'machine')} up" if ours else ""


def _fine_report(facts: Facts) -> str:
    found = known(facts.difference)
    ages = [found.observed.now_ms - s.seen_ms for _, s in reporting(facts)]
    return (
        f"{len(ages)} of {count(facts.desired, 'machine')} heard, the longest {max(ages) / 1000:.0f} s ago"
        if ages
        else ""
    )


def _fine_programs(facts: Facts) -> str:
    kinds = [p.kind for i in running(facts) for p in facts.desired[i].programs]
    others = [k for k in kinds if k is not ProgramKind.WORKER]
    return f"{len(others)} services and set-up steps are as they should be" if others else ""


def _fine_gate(facts: Facts) -> str:
    """Of fleets that have pools: nobody else goes through it."""
    generation = facts.generation
    pools = isinstance(generation, Generation) and bool(generation.fleet.pools)
    return "the API's gate refused nothing within an hour" if pools and not isinstance(facts.redis, Unknown) else ""


def _gate(facts: Facts) -> Iterator[Problem]:
    """What boxes of strangers asked, and may not."""
    if isinstance(facts.redis, Unknown):
        return  # other checks say why
    for machine_id, refused in sorted(facts.redis.gate_refused.items()):
        yield Problem(
            what=f"{machine_id} was refused {refused.count} times within an hour, the last: {refused.last}",
            fix=f"does its worker package have this emp's scripts? else somebody tries there what it may do: "
            f"emp machine forget {machine_id} (docs/security.md, What a rented box may see)",
            where=machine_id,
            level=Level.WARN,
        )


CHECKS = (
    Check(name="machine-runs", group=Group.MACHINES, fine=_fine_run, find=_run),
    Check(name="machine-reports", group=Group.MACHINES, fine=_fine_report, find=_report),
    Check(
        name="machine-ready",
        group=Group.MACHINES,
        fine=lambda f: f"{len(reporting(f))} of {count(f.desired, 'machine')} ready" if reporting(f) else "",
        find=_status,
    ),
    Check(
        name="start-up-events",
        group=Group.MACHINES,
        fine=lambda f: "their start-up events were published" if reporting(f) else "",
        find=_boot_events,
    ),
    Check(name="programs", group=Group.MACHINES, fine=_fine_programs, find=_programs),
    Check(
        name="service-ports",
        group=Group.MACHINES,
        fine=lambda f: "the services' ports are theirs" if running(f) else "",
        find=_ports,
    ),
    Check(
        name="hub-redis-url",
        group=Group.MACHINES,
        fine=lambda f: "every process has the right HUB_REDIS_URL" if running(f) else "",
        find=_environments,
    ),
    Check(
        name="gate",
        group=Group.MACHINES,
        fine=_fine_gate,
        find=_gate,
    ),
    Check(name="services-apart", group=Group.MACHINES, fine=_fine_apart, find=_apart),
    Check(
        name="versions",
        group=Group.MACHINES,
        fine=lambda f: f"agents are of emp {__version__}, as this is" if reporting(f) else "",
        find=_versions,
    ),
)
