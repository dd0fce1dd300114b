"""The last lines that one life of a program wrote into its log, fit to be shown: bounded and without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.fleet.drift.exits import MAX_LINE, MAX_LINES
from emp_orch.lifemark import log_marks_of
from emp_orch.plaintext import one_line

# Enough for five lines, unless a progress bar rewrites its own for minutes.
WINDOW = 32 * 1024
# A shorter value would black out half a log, and is no secret.
MIN_SECRET = 4
HIDDEN = "***"
# Ours, at the head of a log that somebody removed: no word of its program.
REMOVED_LINE = "this log was removed, with what it held; it goes on here\n"

_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class LogPosition(Struct, frozen=True, kw_only=True):
    """Where in its log a process began, as it left that when it was started; `inode` tells whether the log was rotated
    since. `end`: where the next one began, -1 where there is none.
    """

    pid: int
    inode: int
    size: int
    end: int = -1


def began(run: Path, name: str, pid: int) -> LogPosition | None:
    """Where process `pid` of a program began; of an older one, where the oldest that is known did; None where nothing
    is known. `run`: of the identities.
    """
    try:
        marks = log_marks_of(str(run), name)
    except (OSError, ValueError):
        return None
    n = next((n for n, mark in enumerate(marks) if mark[0] == pid), None)
    its_pid, inode, size = marks[-1 if n is None else n]
    later = marks[n - 1] if n else None
    end = later[2] if later is not None and later[1] == inode else -1
    return LogPosition(pid=its_pid, inode=inode, size=size, end=end)


def last_words(log: Path, pid: int, place: LogPosition | None, secrets: Iterable[str]) -> tuple[str, ...]:
    """The last lines of `log` that process `pid` wrote, which has ended; at most MAX_LINES of MAX_LINE characters.

    `place` may be that of a later process: then what it wrote is left out. Blocks for a moment.
    """
    try:
        # A program may have put something else in its log's place.
        fd = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            there = os.fstat(file.fileno())
            same = place is not None and place.inode == there.st_ino and place.size <= there.st_size
            start, end = 0, there.st_size
            if place is not None and same and place.pid == pid:
                start = place.size
                end = min(end, place.end) if place.end >= start else end
            elif place is not None and same:
                end = place.size
            start = max(start, end - WINDOW)
            file.seek(start)
            text = file.read(end - start).decode(errors="replace")
    except OSError:
        return ()
    return shown(_without_ours(text), secrets)


def _without_ours(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.endswith(f" {REMOVED_LINE}"))


def said_since(log: Path, size: int, secrets: Iterable[str]) -> tuple[str, ...]:
    """The last lines of `log` beyond its first `size` bytes. Blocks for a moment."""
    return last_words(log, 0, LogPosition(pid=0, inode=_inode(log), size=size), secrets)


def size_of(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _inode(log: Path) -> int:
    try:
        return log.stat().st_ino
    except OSError:
        return 0


def shown(text: str, secrets: Iterable[str]) -> tuple[str, ...]:
    """The last lines of `text` that say something."""
    hidden = redacted(text, secrets)
    # A progress bar rewrites its line: what stood last in it is what counts.
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _COLOURS.sub("", hidden).split("\n"))
    said = [one_line(line.expandtabs(4).rstrip()) for line in lines if line.strip()]
    return tuple(line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…" for line in said[-MAX_LINES:])


def redacted(text: str, secrets: Iterable[str]) -> str:
    """`text` without `secrets`, the longest first, and without the login of any URL."""
    parts = {part.strip() for secret in secrets for part in (secret, *secret.splitlines())}
    for part in sorted((p for p in parts if len(p) >= MIN_SECRET), key=len, reverse=True):
        text = text.replace(part, HIDDEN)
    return _LOGIN.sub(HIDDEN, text)


def secrets_in(path: Path) -> tuple[str, ...]:
    """The values of a flat JSON file of secrets, as the launcher reads it; empty when there is none."""
    try:
        return tuple(msgspec.json.decode(path.read_bytes(), type=dict[str, str]).values())
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ()
