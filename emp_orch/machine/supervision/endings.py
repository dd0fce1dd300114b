"""Ends of programs, told to supervisord once they are whole: the main process, and then all that it left.

Until then the end is kept back, so whatever comes after an end (a replacement, the answer to a stop, the next group of
a shutdown) waits for it, in supervisord's own states. Nothing left: told at once.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from emp_orch.adopted import Adopted
from emp_orch.machine.supervision.family import Family
from emp_orch.plaintext import one_line
from emp_orch.procident import ProcessIdentity, send

# From TERM to KILL for what a program left that ended by itself: its replacement waits for port and GPU.
GRACE_S = 2.0
# A process that outlives KILL for so long hangs in the kernel; nobody can wait for that.
HANGS_S = 5.0
_NEVER_S = 3_600.0
_NAMED = 5


class Endings:
    """The ends that are kept back, and what was left. `logger` is supervisord's own."""

    def __init__(self, family: Family, adopted: Adopted, logger: Any) -> None:
        self._family = family
        self._adopted = adopted
        self._logger = logger
        self._kept: dict[int, _Kept] = {}

    def is_whole(self, pid: int, status: int) -> bool:
        """Whether the end of `pid` can be told now. What came to us and is no program never is: it ends unheard."""
        program = self._family.program(pid)
        if program is None:
            return False
        left = self._family.left_by(program)
        if not left:
            return True
        self._kept[pid] = _Kept(program, pid, status)
        self._end(self._kept[pid], left)
        return False

    def _end(self, kept: _Kept, left: list[ProcessIdentity]) -> None:
        if new := kept.not_told(left):
            self._logger.info(f"left: '{kept.program.config.name}' with pid {kept.pid}: {_said(new)}")
        kept.end(left)

    def next_whole(self) -> tuple[int, int] | None:
        """An end that was kept back and has become whole: pid and status. Ends further what is left of the others."""
        for pid, kept in list(self._kept.items()):
            left = self._family.left_by(kept.program)
            if left and kept.hangs():
                self._logger.critical(f"'{kept.program.config.name}': {_names(left)} outlive KILL; going on without")
            elif left:
                self._end(kept, left)
                continue
            del self._kept[pid]
            return pid, kept.status
        self._adopted.keep(self._family.look())
        return None

    def due_s(self) -> float:
        """How soon somebody's grace is over."""
        return min((kept.next_s() for kept in self._kept.values()), default=_NEVER_S)

    def hold_still(self) -> None:
        """A program whose main process has ended grows no older: it must not be called running meanwhile."""
        for kept in self._kept.values():
            kept.hold_still()

    def signal(self, pid: int, sig: int) -> bool:
        """Send `sig` to what is left of a program whose main process was `pid`; False for one that lives."""
        kept = self._kept.get(pid)
        if kept is None:
            return False
        for who in self._family.left_by(kept.program):
            send(who, signal.Signals(sig))
        return True

    def end_rest(self, reap: Callable[[], Any]) -> None:
        """End all that is below us and no program's. Blocks, at most for the grace and for what hangs."""
        begun_s = time.monotonic()
        told: set[ProcessIdentity] = set()
        while left := self._family.rest():
            if new := [who for who in left if who not in told]:
                self._logger.info(f"left: {_said(new)}")
                _send_all(new, signal.SIGTERM)
                told.update(new)
            lasted_s = time.monotonic() - begun_s
            if lasted_s > GRACE_S:
                _send_all(left, signal.SIGKILL)
            if lasted_s > GRACE_S + HANGS_S:
                self._logger.critical(f"{_names(left)} outlive KILL; going on without")
                return
            while reap()[0]:
                pass
            time.sleep(0.01)


class _Kept:
    """One end that is kept back."""

    def __init__(self, program: Any, pid: int, status: int) -> None:
        self.program = program
        self.pid = pid
        self.status = status
        self._began_s = time.monotonic()
        self._lived_s = time.time() - program.laststart
        # Who asked for the end gave it so long; a stop signal that supervisord sends again is `Endings.signal`.
        self._asked = bool(program.killing)
        self._grace_s = max(GRACE_S, float(program.config.stopwaitsecs)) if self._asked else GRACE_S
        self._told: set[ProcessIdentity] = set()
        self._named: set[ProcessIdentity] = set()

    def not_told(self, left: list[ProcessIdentity]) -> list[ProcessIdentity]:
        """Who is to be told of now. With a stop that was asked for the program's group was told to end as well: that
        is no finding, until it outlives the grace.
        """
        ends = self._asked and self._lasted_s() < self._grace_s
        new = [who for who in left if who not in self._named and not (ends and _group(who.pid) == self.pid)]
        self._named.update(new)
        return new

    def end(self, left: list[ProcessIdentity]) -> None:
        new = [who for who in left if who not in self._told]
        _send_all(new, signal.SIGTERM)
        self._told.update(new)
        if self._lasted_s() >= self._grace_s:
            _send_all(left, signal.SIGKILL)

    def hangs(self) -> bool:
        return self._lasted_s() >= self._grace_s + HANGS_S

    def next_s(self) -> float:
        left_s = self._grace_s - self._lasted_s()
        return left_s if left_s > 0 else max(0.0, left_s + HANGS_S)

    def hold_still(self) -> None:
        self.program.laststart = time.time() - self._lived_s

    def _lasted_s(self) -> float:
        return time.monotonic() - self._began_s


def _send_all(whom: list[ProcessIdentity], sig: signal.Signals) -> None:
    for who in whom:
        with suppress(OSError):  # it may be another user's by now
            send(who, sig)


def _said(whom: list[ProcessIdentity]) -> str:
    """runtimes/supervisor_log reads it."""
    return f"{len(whom)} process{'' if len(whom) == 1 else 'es'}: {_names(whom)}"


def _names(whom: list[ProcessIdentity]) -> str:
    named = ", ".join(f"{_name(who.pid)} ({who.pid})" for who in whom[:_NAMED])
    return f"{named} and {len(whom) - _NAMED} more" if len(whom) > _NAMED else named


def _name(pid: int) -> str:
    """What it is called by its own first word; the kernel's name for one that has none."""
    try:
        words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
        name = words[0].rpartition("/")[2] or os.fsdecode(Path(f"/proc/{pid}/comm").read_bytes()).strip()
    except OSError:
        name = ""
    return one_line(name) or "?"


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
