"""Lines of log files: the last ones merged in time order, and those that come, told by the kernel (inotify).

A file may be truncated, rotated, or come into being while it is followed; no line is lost or shown twice.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from emp_orch.control.logs.files import LogFile, rotated
from emp_orch.control.logs.times import line_time

BLOCK = 64 * 1024
# Of one log no more than this is read backwards, however few lines that is.
MAX_TAIL = 8 * 1024 * 1024
# A line longer than this is cut in pieces.
MAX_LINE = 256 * 1024


class Line(Struct, frozen=True, kw_only=True):
    """`at` is seconds since the epoch: the line's own, or that of the line before it."""

    name: str
    at: float
    text: str


class Reader:
    """One log, read on from where it was left. `poll` gives the whole lines that have come."""

    def __init__(self, file: LogFile, *, from_start: bool) -> None:
        self.file = file
        self._fd: int | None = None
        self._inode = 0
        self._rest = b""
        self._at = 0.0
        self._open(from_start=from_start)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self, *, from_start: bool) -> None:
        try:
            self._fd = os.open(self.file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            self._fd = None
            return
        self._inode = os.fstat(self._fd).st_ino
        if not from_start:
            os.lseek(self._fd, _after_last_newline(self._fd), os.SEEK_SET)

    def tail(self, count: int, *, unfinished: bool) -> list[Line]:
        """The last `count` lines, rotated files included; `poll` goes on behind them.

        `unfinished`: with a last line that is still being written, for who does not follow.
        """
        end = os.lseek(self._fd, 0, os.SEEK_CUR) if self._fd is not None and not unfinished else None
        texts = _last_lines(self.file.path, count, end)
        for old in rotated(self.file.path) if len(texts) < count else []:
            texts = _last_lines(old, count - len(texts), None) + texts
            if len(texts) >= count:
                break
        return self._timed(texts[-count:] if count else [])

    def poll(self) -> list[Line]:
        """What was written since the last call; across a rotation the old file to its end, then the new one."""
        texts = self._read()
        if self._was_replaced():
            texts += self._flush()
            self.close()
            self._open(from_start=True)
            texts += self._read()
        return self._timed(texts)

    def _was_replaced(self) -> bool:
        try:
            return self.file.path.lstat().st_ino != self._inode
        except OSError:
            return False  # between its rename and the new one's creation

    def _read(self) -> list[str]:
        if self._fd is None:
            self._open(from_start=True)
        if self._fd is None:
            return []
        if os.fstat(self._fd).st_size < os.lseek(self._fd, 0, os.SEEK_CUR):
            os.lseek(self._fd, 0, os.SEEK_SET)  # it was cleared
            self._rest = b""
        texts: list[str] = []
        while block := os.read(self._fd, BLOCK):
            *whole, self._rest = (self._rest + block).split(b"\n")
            texts += [_text(line) for line in whole]
            if len(self._rest) > MAX_LINE:
                texts += self._flush()
        return texts

    def _flush(self) -> list[str]:
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []

    def _timed(self, texts: list[str]) -> list[Line]:
        times = [line_time(text) for text in texts]
        if not self._at:
            self._at = next((t for t in times if t is not None), self._written())
        lines = []
        for text, at in zip(texts, times, strict=True):
            # Never back in time: the order within a file is the truth.
            self._at = max(self._at, at if at is not None else self._at)
            lines.append(Line(name=self.file.name, at=self._at, text=text))
        return lines

    def _written(self) -> float:
        try:
            return self.file.path.lstat().st_mtime
        except OSError:
            return 0.0


def _after_last_newline(fd: int) -> int:
    """Where the last line begins if it is unfinished, else the end of the file."""
    size = os.fstat(fd).st_size
    start = max(0, size - BLOCK)
    newline = os.pread(fd, size - start, start).rfind(b"\n")
    return size if newline < 0 and start else start + newline + 1


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")


def _last_lines(path: Path, count: int, end: int | None) -> list[str]:
    """The last `count` lines before offset `end` (None: the end of the file), read backwards in blocks."""
    if count <= 0:
        return []
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        at = os.fstat(fd).st_size if end is None else end
        blocks: deque[bytes] = deque()
        newlines, total = 0, 0
        while at > 0 and newlines <= count and total < MAX_TAIL:
            size = min(BLOCK, at)
            at -= size
            block = os.pread(fd, size, at)
            blocks.appendleft(block)
            newlines += block.count(b"\n")
            total += size
    finally:
        os.close(fd)
    lines = b"".join(blocks).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if at > 0 and len(lines) > 1:
        lines.pop(0)  # its beginning was not read
    return [_text(line) for line in lines[-count:]]


def merged(lines: Iterable[Line]) -> list[Line]:
    """In time order; lines of one file stay in theirs."""
    return sorted(lines, key=lambda line: line.at)


def last_lines(readers: Iterable[Reader], count: int, *, unfinished: bool) -> Iterator[Line]:
    """The last `count` lines of all `readers` together, in time order."""
    found = merged(line for reader in readers for line in reader.tail(count, unfinished=unfinished))
    yield from found[-count:] if count else []
