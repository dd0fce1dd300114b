"""How a program ended, as supervisord's own log tells it: the one place where its status is kept for every end.

Neither the event of an end nor getProcessInfo has it: for a process that ended within its start seconds `exitstatus` is
0, and a signal is -1 (supervisor/process.py, finish). The log has it for all versions from 4.2, and before the event is
sent. docs/adr/0016.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from msgspec import Struct

from emp_orch.fleet.drift.leftovers import Process

# A supervisord that restarts programs writes about 200 bytes for each.
WINDOW = 128 * 1024

_LINE = re.compile(
    r"^(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(?P<ms>\d{3}) [A-Z]+ "
    r"(?:spawned: '(?P<spawned>[^']+)' with pid (?P<pid>\d+)"
    r"|left: '(?P<parent>[^']+)' with pid (?P<of>\d+): (?P<count>\d+) process(?:es)?: (?P<left>[^\n]*)"
    r"|(?P<what>exited|stopped): (?P<ended>\S+) \((?P<how>[^\n]*))$",
    re.MULTILINE,
)
_STATUS = re.compile(r"exit status (\d+)")
_SIGNAL = re.compile(r"terminated by (\w+)")
MAX_LEFT = 300
# As machine/supervision/endings writes it; without a program of what was left when supervisord itself ended.
_LEFT = re.compile(
    r"^\S+ \S+ INFO left: (?:'(?P<program>[^']+)' with pid \d+: )?(?P<count>\d+) process(?:es)?: (?P<names>[^\n]*)$",
    re.MULTILINE,
)
_NAMED = re.compile(r"(?P<name>.+?) \((?P<pid>\d+)\)(?:, |$| and \d+ more$)")


class LoggedEnd(Struct, frozen=True, kw_only=True):
    """One `exited` line. `began_ms` is 0 where its start is no longer in the log. `left`: the processes that it left,
    which machine/supervision ended and wrote down before; empty where there were none.
    """

    pid: int
    at_ms: int
    began_ms: int
    exit_status: int | None
    signal: str
    left: str = ""


def last_end(log: Path, name: str, pid: int = 0) -> LoggedEnd | None:
    """The last unasked end of program `name` that the log tells, or that of its process `pid`; None: it tells none.

    Blocks for a moment.
    """
    for path in (log, log.with_name(f"{log.name}.1")):
        found = _last_end(_tail(path), name, pid)
        if found is not None:
            return found
    return None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - WINDOW))
            return file.read(WINDOW).decode(errors="replace")
    except OSError:
        return ""


def _last_end(text: str, name: str, pid: int) -> LoggedEnd | None:
    found: LoggedEnd | None = None
    began_ms = running = 0
    left = ""
    for line in _LINE.finditer(text):
        if line["spawned"] == name:
            running, began_ms, left = int(line["pid"]), _ms(line), ""
        elif line["parent"] == name:
            left = (f"{left}, {line['left']}" if left else line["left"])[:MAX_LEFT]
        elif line["ended"] == name:
            # One whose start is no longer there may be the one that is asked for.
            if line["what"] == "exited" and (not pid or running in (pid, 0)):
                found = _ended(line, running or pid, began_ms, left)
            running = began_ms = 0
            left = ""
    return found


def _ended(line: re.Match[str], pid: int, began_ms: int, left: str) -> LoggedEnd:
    status, signal = _STATUS.match(line["how"]), _SIGNAL.match(line["how"])
    return LoggedEnd(
        pid=pid,
        at_ms=_ms(line),
        began_ms=began_ms,
        exit_status=int(status[1]) if status else None,
        signal=signal[1] if signal else "",
        left=left,
    )


def _ms(line: re.Match[str]) -> int:
    """supervisord writes the local time of its environment, which is ours."""
    return int(time.mktime(time.strptime(line["at"], "%Y-%m-%d %H:%M:%S"))) * 1000 + int(line["ms"])


class LogPosition(Struct, frozen=True, kw_only=True):
    """Where a log ended once; the default is before its first line."""

    inode: int = 0
    size: int = 0


class LeftoverLine(Struct, frozen=True, kw_only=True):
    """What a program had left, which supervisord then ended: `count` processes, the first of them by name."""

    program: str
    count: int
    processes: tuple[Process, ...]


def log_end(log: Path) -> LogPosition:
    try:
        there = log.stat()
    except OSError:
        return LogPosition()
    return LogPosition(inode=there.st_ino, size=there.st_size)


def leftovers_since(log: Path, place: LogPosition) -> list[LeftoverLine]:
    """What supervisord says since `place` that it ended beside programs. Blocks for a moment."""
    older = log.with_name(f"{log.name}.1")
    text = (
        _since(older, place) + _since(log, LogPosition()) if log_end(older).inode == place.inode else _since(log, place)
    )
    return [
        LeftoverLine(
            program=line["program"] or "",
            count=int(line["count"]),
            processes=tuple(Process(name=p["name"], pid=int(p["pid"])) for p in _NAMED.finditer(line["names"])),
        )
        for line in _LEFT.finditer(text)
    ]


def _since(path: Path, place: LogPosition) -> str:
    """What stands in `path` after `place`, at most WINDOW of it."""
    start = place.size if log_end(path).inode == place.inode else 0
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - WINDOW))
            return file.read(WINDOW).decode(errors="replace")
    except OSError:
        return ""
