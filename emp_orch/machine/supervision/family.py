"""Whose a process is that supervisord has inherited: what a program began is its own, whatever that did since.

supervisord is a subreaper, so an orphan becomes its child. It belongs to the program that its mark names, or in whose
group or session it is, or into whose output it writes. One that gave all that away belongs to the first program that
ends just after it came, as one does that sent it to the background, or to the only program there is. What carries
another mark than ours is another supervisord's, with all below it: the reconciler starts machines, and so may anybody
in a program's terminal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from emp_orch.lifemark import START_TICKS, stat_fields
from emp_orch.marks import MARK, environ_of
from emp_orch.procident import ProcessIdentity

AGENT = "agent"
RECENT_S = 5.0
_PARENT, _GROUP, _SESSION = 1, 2, 3


class _Seen(NamedTuple):
    who: ProcessIdentity
    group: int
    session: int


class Family:
    """Of supervisord `me`. `programs`: the main process of each by pid, with those that have just ended."""

    def __init__(self, me: int, programs: Mapping[int, Any], mark: str = "") -> None:
        self._me = me
        self._ours = mark.rpartition(":")[0]
        self._programs = programs
        self._owners: dict[ProcessIdentity, str] = {}
        self._came_s: dict[ProcessIdentity, float] = {}

    def program(self, pid: int) -> Any:
        """The program whose main process `pid` is; None of nobody's."""
        return self._programs.get(pid)

    def left_by(self, program: Any) -> list[ProcessIdentity]:
        """What still lives of `program`, whose main process has ended."""
        self._look(at_end_of=program.config.name)
        return self._trees(program.config.name)

    def look(self) -> list[ProcessIdentity]:
        """Take note of the orphans that came to us; returns those of ours that no mark tells of."""
        self._look(at_end_of="")
        return [who for who in self._owners if not mark_of(who.pid)]

    def rest(self) -> list[ProcessIdentity]:
        """Every process below us."""
        return self._below(children(self._me))

    def _look(self, *, at_end_of: str) -> None:
        orphans = [seen for pid in children(self._me) if pid not in self._programs and (seen := _seen(pid))]
        now_s = time.monotonic()
        self._came_s = {one.who: self._came_s.get(one.who, now_s) for one in orphans}
        known = self._owners
        self._owners = {one.who: known.get(one.who) or self._owner(one, at_end_of, now_s) for one in orphans}

    def _owner(self, one: _Seen, at_end_of: str, now_s: float) -> str:
        """Empty while nobody can tell."""
        came_s = now_s - self._came_s[one.who]
        if came_s > RECENT_S or self._is_foreign(one.who.pid):
            return ""
        named = mark_of(one.who.pid).rpartition(":")[2]
        return self._told_owner(one, named) or at_end_of or self._only()

    def _told_owner(self, one: _Seen, named: str) -> str:
        names = {process.config.name: process for process in self._programs.values()}
        if named in names:
            return named
        for number in (one.group, one.session):
            if number in self._programs:
                return str(self._programs[number].config.name)
        outputs = _outputs(one.who.pid)
        return next((name for name, process in names.items() if outputs & _pipes(process)), "")

    def _only(self) -> str:
        names = {str(process.config.name) for process in self._programs.values()} - {AGENT}
        return names.pop() if len(names) == 1 else ""

    def _trees(self, name: str) -> list[ProcessIdentity]:
        return self._below([who.pid for who, owner in self._owners.items() if owner == name])

    def _below(self, pids: list[int]) -> list[ProcessIdentity]:
        """The living of `pids`, and of all that descend from them, that are not another supervisord's."""
        found: dict[int, ProcessIdentity] = {}
        while pids:
            pid = pids.pop()
            if pid in found or (one := _seen(pid)) is None or self._is_foreign(pid):
                continue
            found[pid] = one.who
            pids += children(pid)
        return list(found.values())

    def _is_foreign(self, pid: int) -> bool:
        place = mark_of(pid).rpartition(":")[0]
        return bool(place) and place != self._ours


def children(pid: int) -> list[int]:
    """The children of `pid`, zombies as well; none of a process that is gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # each is a number
            with open(f"/proc/{pid}/task/{task}/children", "rb", buffering=0) as file:  # noqa: PTH123  # looked at often
                found += map(int, file.read().split())
    except FileNotFoundError:
        # It has ended meanwhile, or the kernel was built without CONFIG_PROC_CHILDREN.
        return [] if stat_fields(pid) is None else _children_by_search(pid)
    except OSError:
        return []
    return found


def _children_by_search(parent: int) -> list[int]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if (fields := stat_fields(pid)) is not None and int(fields[_PARENT]) == parent]


def _seen(pid: int) -> _Seen | None:
    """None for one that is gone, a zombie included."""
    fields = stat_fields(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    who = ProcessIdentity(pid=pid, start_ticks=int(fields[START_TICKS]))
    return _Seen(who, int(fields[_GROUP]), int(fields[_SESSION]))


def mark_of(pid: int) -> str:
    """The mark of `pid`; empty without one."""
    start = f"{MARK}=".encode()
    variables = environ_of(pid).split(b"\0")
    return next((os.fsdecode(v.removeprefix(start)) for v in variables if v.startswith(start)), "")


def _outputs(pid: int) -> set[int]:
    """The inodes of the pipes that it writes its output into."""
    found = set()
    for number in (1, 2):
        try:
            kind, _, inode = str(Path(f"/proc/{pid}/fd/{number}").readlink()).partition(":[")
        except OSError:
            continue
        if kind == "pipe":
            found.add(int(inode.rstrip("]")))
    return found


def _pipes(process: Any) -> set[int]:
    """The inodes of the pipes that supervisord reads the output of `process` from."""
    fds = (process.pipes.get("stdout"), process.pipes.get("stderr"))
    return {os.fstat(fd).st_ino for fd in fds if fd is not None}
