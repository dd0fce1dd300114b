"""Processes that outlive the supervisord they belong to, by the identities they left in `run/`."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from emp_orch.layout import Layout
from emp_orch.procident import alive, recorded

SUPERVISORD = "supervisord"


class Orphan(Struct, frozen=True, kw_only=True):
    """`machine_id` is empty for the control plane. `home` is the folder whose supervisord is gone."""

    machine_id: str
    program: str
    pid: int
    home: Path


def orphans(layout: Layout) -> tuple[Orphan, ...]:
    """Every living process of this fleet whose supervisord is gone."""
    homes = [("", layout.control), *((home.name, home) for home in machine_folders(layout))]
    return tuple(o for machine_id, home in homes for o in _orphans(machine_id, home))


def anything_runs(layout: Layout) -> bool:
    """Whether any process that recorded itself in this fleet's folder lives."""
    homes = [layout.control, *machine_folders(layout)]
    found = (recorded(path) for home in homes for path in (home / "run").glob("*"))
    return any(who is not None and alive(who) for who in found)


def machine_folders(layout: Layout) -> list[Path]:
    """The folders of all machines that were ever started here."""
    try:
        return sorted(p for p in layout.machines.iterdir() if p.is_dir())
    except OSError:
        return []


def _orphans(machine_id: str, home: Path) -> list[Orphan]:
    supervisord = recorded(home / "run" / SUPERVISORD)
    if supervisord is not None and alive(supervisord):
        return []
    found = []
    for path in sorted((home / "run").glob("*")):
        who = recorded(path)
        if who is not None and alive(who):
            found.append(Orphan(machine_id=machine_id, program=path.name, pid=who.pid, home=home))
    return found
