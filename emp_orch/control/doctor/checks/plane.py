"""Checks of the control plane: its supervisord, its parts, its ports, what a killed one left behind."""

from __future__ import annotations

from collections.abc import Iterator

from emp_orch.control.doctor.facts.gather import Facts
from emp_orch.control.doctor.facts.logs import last_line
from emp_orch.control.doctor.facts.unknown import Unknown
from emp_orch.control.doctor.model import Check, Group, Level, Problem, count, known, revive
from emp_orch.control.host.orphans import SUPERVISORD
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.model.fleet import EMBEDDED, Fleet
from emp_orch.fleet.policy.leader_silence import is_silent
from emp_orch.procident import identify, started_ms
from emp_orch.render.supervisord import CONTROL_PROGRAMS, EMBEDDED_REDIS
from emp_orch.settings import Settings
from emp_orch.store.artifacts.url import without_login

# A start of a machine that takes longer than this hangs.
START_MS = 120_000


def _supervisord(facts: Facts) -> Iterator[Problem]:
    known(facts.settings)
    if facts.supervisord is None:
        yield Problem(
            what="the control plane does not run: its supervisord is gone",
            fix="emp apply",
            where=str(facts.layout.log("control")),
        )


def _parts(facts: Facts) -> Iterator[Problem]:
    settings = known(facts.settings)
    if facts.supervisord is None:
        return
    infos = {i.name: i for i in facts.parts}
    for part in ((EMBEDDED_REDIS,) if settings.embedded else ()) + CONTROL_PROGRAMS:
        info = infos.get(part.name)
        state = info.statename if info else "unknown to its supervisord"
        if state != "RUNNING":
            log = facts.layout.log(part.log)
            yield Problem(
                what=f"{part.name} is {state}; its log ends: {last_line(log)}",
                fix=revive(facts, part.name),
                where=str(log),
                level=Level.WARN if state == "STARTING" else Level.FAIL,
            )


def _ports(facts: Facts) -> Iterator[Problem]:
    """Each port is listened on by our own process; before an apply, by nobody."""
    if isinstance(facts.settings, Settings):
        yield from _ports_in_use(facts, facts.settings)
    elif isinstance(facts.fleet, Fleet):
        yield from _ports_wanted(facts, facts.fleet)


def _ports_in_use(facts: Facts, settings: Settings) -> Iterator[Problem]:
    pids = {i.name: i.pid for i in facts.parts if i.pid}
    left = {o.program: o.pid for o in facts.orphans if not o.machine_id}
    wanted = {"api": settings.api.port, "monitor": settings.monitor.port}
    if settings.embedded:
        wanted["redis"] = settings.redis_port
    for part, port in wanted.items():
        who = facts.holders.get(port)
        ours = pids.get(part) or left.get(part) or 0
        if who is None and ours:
            yield Problem(
                what=f"{part} runs (pid {ours}), but nobody listens on port {port}",
                fix=f"emp logs {part}",
                where=f"port {port}",
            )
        elif who is not None and not who.pid:
            yield Problem(
                what=f"port {port} of {part} is held by a process of another user",
                fix="run emp doctor as that user, or choose another port in emp.yaml",
                where=f"port {port}",
                level=Level.WARN if ours else Level.FAIL,
            )
        elif who is not None and not who.belongs_to(ours):
            yield Problem(
                what=f"port {port} of {part} is taken by a process that is not ours: {who}",
                fix=f"stop it, or set another {part}.port in emp.yaml and run emp apply",
                where=f"port {port}",
            )


def _ports_wanted(facts: Facts, fleet: Fleet) -> Iterator[Problem]:
    names = {fleet.api.port: "api.port", fleet.monitor.port: "monitor.port"}
    if fleet.redis.url == EMBEDDED:
        names[fleet.redis.port] = "redis.port"
    names |= {p.port: f"{m.id}/{p.name}" for m in desired_machines(fleet).values() for p in m.programs if p.port}
    for port, name in names.items():
        if port in facts.holders:
            yield Problem(
                what=f"port {port} ({name}) is taken by {facts.holders[port]}",
                fix="stop that process, or set another port in emp.yaml",
                where=f"port {port}",
            )


def _orphans(facts: Facts) -> Iterator[Problem]:
    for orphan in facts.orphans:
        owner = orphan.machine_id or "the control plane"
        yield Problem(
            what=f"{orphan.program} of {owner} (pid {orphan.pid}) runs on though its {SUPERVISORD} is gone",
            fix="emp apply starts it anew and ends what is left; emp down only ends it",
            where=str(orphan.home),
        )


def _locks(facts: Facts) -> Iterator[Problem]:
    for machine_id, pid in facts.locks.items():
        who = identify(pid)
        if who is None:
            continue
        age_ms = facts.now_ms - started_ms(who)
        if age_ms > START_MS and not facts.machine_is_alive(machine_id):
            yield Problem(
                what=f"process {pid} holds the lock of {machine_id}, which does not run: its start hangs",
                fix="emp down, then emp apply; emp logs reconcile",
                where=str(facts.layout.machine(machine_id) / ".lock"),
                level=Level.WARN,
            )


def _reconciler(facts: Facts) -> Iterator[Problem]:
    found = known(facts.difference)
    age_ms = found.status_age_ms
    if age_ms is None:
        yield Problem(
            what="no reconciler has ever looked at this fleet", fix=revive(facts, "reconcile"), where="reconcile"
        )
    elif is_silent(age_ms, found.interval_ms):
        yield Problem(
            what=f"the reconciler has been silent for {age_ms // 1000} s: nothing is repaired",
            fix=revive(facts, "reconcile"),
            where="reconcile",
        )


def _artifacts(facts: Facts) -> Iterator[Problem]:
    """Whether outputs can be saved and read, as this user on this host."""
    settings = known(facts.store_settings)
    if isinstance(facts.artifacts, Unknown):
        yield Problem(
            what=facts.artifacts.reason,
            fix="make room, or correct its owner, credentials (in the environment) or jobs.artifacts in emp.yaml",
            where=without_login(settings.artifacts),
        )


def _fine_reconciler(facts: Facts) -> str:
    found = known(facts.difference)
    return f"the reconciler looked {(found.status_age_ms or 0) / 1000:.0f} s ago; {count(found.drift, 'difference')}"


def _fine_ports(facts: Facts) -> str:
    if facts.supervisord is None or isinstance(facts.settings, Unknown):
        return "no port of ours is taken by anybody else"
    return "API, page and Redis listen on their ports" if facts.settings.embedded else "API and page listen"


def _fine_supervisord(facts: Facts) -> str:
    return f"its supervisord runs (pid {facts.supervisord.pid})" if facts.supervisord else ""


def _fine_parts(facts: Facts) -> str:
    return f"{', '.join(i.name for i in facts.parts)} run" if facts.supervisord else ""


CHECKS = (
    Check(name="supervisord", group=Group.PLANE, fine=_fine_supervisord, find=_supervisord),
    Check(name="parts", group=Group.PLANE, fine=_fine_parts, find=_parts),
    Check(name="ports", group=Group.PLANE, fine=_fine_ports, find=_ports),
    Check(name="orphans", group=Group.PLANE, fine=lambda _: "no process without its supervisord", find=_orphans),
    Check(name="locks", group=Group.PLANE, fine=lambda _: "no start hangs", find=_locks),
    Check(name="reconciler", group=Group.PLANE, fine=_fine_reconciler, find=_reconciler),
    Check(
        name="artifacts",
        group=Group.PLANE,
        fine=lambda f: f"outputs can be saved to {without_login(known(f.store_settings).artifacts)}",
        find=_artifacts,
    ),
)
