"""What the programs of a machine have used: CPU time so far and memory now, of each one's whole process tree.

`python -I -m emp_orch.procuse [FOLDER]` prints it as JSON for the machine's folder: how a container is asked from
outside. Source: proc(5). Linux only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.lifemark import START_TICKS, stat_fields
from emp_orch.procident import ProcessIdentity, alive, recorded

SUPERVISORD = "supervisord"
# Fields of /proc/PID/stat, counted from its third: parent, group, user and system time, those of ended children, pages.
_PARENT, _GROUP, _USER, _SYSTEM, _CHILDREN_USER, _CHILDREN_SYSTEM, _PAGES = 1, 2, 11, 12, 13, 14, 21


class Process(Struct, frozen=True, kw_only=True):
    """`own_s` is its CPU time, `ended_s` that of children that ended. `memory` is resident, in bytes."""

    pid: int
    parent: int
    group: int
    start_ticks: int
    own_s: float
    ended_s: float
    memory: int


class Used(Struct, frozen=True, kw_only=True):
    """One program's processes. `pid` is the program's own; memory that several share counts for each."""

    pid: int
    processes: int
    cpu_s: float
    memory: int


class Measured(Struct, frozen=True, kw_only=True):
    """`at_s` is of the monotonic clock of where it was measured."""

    at_s: float
    programs: dict[str, Used]


def processes() -> dict[int, Process]:
    """Every process that can be seen, by pid."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return {pid: found for pid in pids if (found := _process(pid)) is not None}


def _process(pid: int) -> Process | None:
    fields = stat_fields(pid)
    if fields is None:
        return None
    ticks_a_second, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    return Process(
        pid=pid,
        parent=int(fields[_PARENT]),
        group=int(fields[_GROUP]),
        start_ticks=int(fields[START_TICKS]),
        own_s=(int(fields[_USER]) + int(fields[_SYSTEM])) / ticks_a_second,
        ended_s=(int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) / ticks_a_second,
        memory=int(fields[_PAGES]) * page,
    )


def measure(home: Path, table: Mapping[int, Process] | None = None) -> Measured:
    """What the machine in `home` has used, by program; `table` as `processes` gives it."""
    at_s = time.monotonic()
    table = processes() if table is None else table
    roots = {}
    for path in (home / "run").glob("[!.]*"):
        who = recorded(path)
        if who is not None and alive(who):
            roots[who] = path.name
    return Measured(at_s=at_s, programs=attributed(roots, table))


def attributed(roots: Mapping[ProcessIdentity, str], table: Mapping[int, Process]) -> dict[str, Used]:
    """Each process of `table` given to the program it descends from, or whose process group it stayed in."""
    names = {who.pid: name for who, name in roots.items() if _is(who, table)}
    belonging: dict[str, list[Process]] = {}
    for process in table.values():
        owner = _owner(process, names, table)
        if owner is not None:
            belonging.setdefault(owner, []).append(process)
    pids = {name: pid for pid, name in names.items()}
    return {name: _used(name, pids[name], belonging[name]) for name in sorted(pids)}


def _is(who: ProcessIdentity, table: Mapping[int, Process]) -> bool:
    found = table.get(who.pid)
    return found is not None and found.start_ticks == who.start_ticks


def _owner(process: Process, names: Mapping[int, str], table: Mapping[int, Process]) -> str | None:
    pid, seen = process.pid, set[int]()
    while pid in table and pid not in seen:
        if pid in names:
            return names[pid]
        seen.add(pid)
        pid = table[pid].parent
    return names.get(process.group)


def _used(name: str, pid: int, belonging: list[Process]) -> Used:
    # What a child used stays with its program when it ends; but ended programs are no work of supervisord's.
    ended_s = 0.0 if name == SUPERVISORD else sum(p.ended_s for p in belonging)
    return Used(
        pid=pid,
        processes=len(belonging),
        cpu_s=sum(p.own_s for p in belonging) + ended_s,
        memory=sum(p.memory for p in belonging),
    )


def host_memory() -> int:
    """Bytes of memory that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("EMP_MACHINE_FOLDER", ".")
    sys.stdout.write(msgspec.json.encode(measure(Path(folder))).decode())


if __name__ == "__main__":
    main()
