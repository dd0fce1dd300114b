"""Ports that an apply is about to use: refused beforehand when they belong to somebody else."""

from __future__ import annotations

import os
from pathlib import Path

from emp_orch import marks
from emp_orch.adopted import FOLDER as ADOPTED
from emp_orch.control.checks.proposed import Preview, Proposal
from emp_orch.control.host.hosted import fleet_of
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.machines import desired_machines
from emp_orch.fleet.plan.operations import Effect
from emp_orch.host import ports
from emp_orch.layout import Layout
from emp_orch.procident import alive, ancestors, identify, recorded
from emp_orch.settings import Settings

# (host, port, what it is for, where that stands)
Wanted = tuple[str, int, str, str]


def refuse_taken_ports(layout: Layout, proposal: Proposal, seen: Preview) -> None:
    """Raise EmpError when a port that is about to be used belongs to somebody else; all of them at once."""
    running = [] if seen.running is None else _control_ports(seen.running)
    wanted = [(w, layout.control.name) for w in _control_ports(proposal.settings) if w not in running]
    wanted += _machine_ports(proposal, seen)
    taken = [(w, machine_id) for w, machine_id in wanted if ports.taken(w[0], w[1])]
    holders = ports.port_holders({w[1] for w, _ in taken})
    lines = [line for w, id_ in taken if (line := _say(layout, w, holders.get(w[1]), {"", id_, *seen.removed}))]
    if lines:
        raise EmpError("\n".join(lines), hint="free it, or give another port in emp.yaml")


def _say(layout: Layout, wanted: Wanted, who: ports.Holder | None, leaving: set[str]) -> str:
    """What to say about a port that somebody holds; empty when its holder is one of `leaving`.

    "" stands for what a killed supervisord of ours left behind: it is ended before its successor starts.
    """
    _, port, what, where = wanted
    owner = _owner(layout, who.pid) if who else None
    if owner is not None and owner in leaving:
        return ""
    match owner:
        case None | "":
            by = _stranger(who)
        case layout.control.name:
            by = f"the control plane of this fleet ({who})"
        case _:
            by = f"machine {owner} of this fleet, which `emp apply --prune` removes"
    return f"{where}: port {port} for {what} is taken by {by}"


def _stranger(who: ports.Holder | None) -> str:
    if who is None:
        return "somebody"
    of = fleet_of(who.pid) if who.pid else ""
    return f"{of} ({who})" if of else str(who)


def _control_ports(settings: Settings) -> list[Wanted]:
    wanted = [
        (settings.api.host, settings.api.port, "the API", "api.port"),
        (settings.monitor.host, settings.monitor.port, "the monitor page", "monitor.port"),
    ]
    if settings.embedded:
        wanted.append(("127.0.0.1", settings.redis_port, "the embedded Redis", "redis.port"))
    return wanted


def _machine_ports(proposal: Proposal, seen: Preview) -> list[tuple[Wanted, str]]:
    """Ports of this host that programs about to start will listen on, and health ports of machines that do.

    Inside a container a machine has all ports to itself; published ones are Docker's to refuse.
    """
    new = {(c.machine_id, name) for c in seen.changes for name in c.added}
    starting = {c.machine_id for c in seen.changes if c.effect is Effect.START}
    wanted: list[tuple[Wanted, str]] = []
    here = (m for m in desired_machines(proposal.fleet).values() if m.traits.shares_host)
    for machine in here:
        wanted += [
            (("127.0.0.1", p.port, f"{machine.id}/{p.name}", p.origin), machine.id)
            for p in machine.programs
            if p.port is not None and (machine.id, p.name) in new
        ]
        if machine.health_port and machine.id in starting:
            wanted.append((("127.0.0.1", machine.health_port, f"{machine.id}'s health", machine.origin), machine.id))
    return wanted


def _owner(layout: Layout, pid: int) -> str | None:
    """Which of this fleet's machines process `pid` belongs to: "" for a supervisord of ours that is dead.

    None when it is a stranger.
    """
    home = _home_by_record(layout, pid) or _home_by_mark(layout, pid) if pid else None
    if home is None:
        return None
    supervisord = recorded(home / "run" / "supervisord")
    return home.name if supervisord is not None and alive(supervisord) else ""


def _home_by_record(layout: Layout, pid: int) -> Path | None:
    """Where its group's leader recorded itself, or its supervisord did so for it or for who began it."""
    try:
        leader = identify(os.getpgid(pid))
    except ProcessLookupError:
        return None
    above = [who for one in (pid, *ancestors(pid)) if (who := identify(one)) is not None]
    for path in layout.state.glob("**/run/*"):
        if leader is not None and recorded(path) == leader:
            return path.parent.parent
    # What a machine's supervisord left is the control plane's afterwards, as far as that can see.
    found = (path for path in layout.state.glob(f"**/{ADOPTED}/*") if recorded(path) in above)
    homes = [path.parent.parent for path in found]
    return min(homes, key=lambda home: home == layout.control, default=None)


def _home_by_mark(layout: Layout, pid: int) -> Path | None:
    """Where the supervisord lives that began it, whatever it did since with groups and sessions."""
    owner = marks.owner_of(pid)
    if owner is None or owner.mark.place != marks.of_folder(layout.root).place:
        return None
    return layout.machine(owner.mark.machine) if owner.mark.machine else layout.control
