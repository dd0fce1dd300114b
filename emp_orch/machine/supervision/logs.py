"""supervisord's own log and those of its programs, on a disk that may be full: nothing that a disk refuses is raised.

supervisord's handlers raise it. Where a program's output cannot be written it then reads that no more, and the program
stands still once the pipe is full; elsewhere it ends, and every program with it. Ours leave out what cannot be written,
say so where the log goes on, and keep a log that cannot be rotated as it is.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import loggers

from emp_orch import logmodes

# After these the open file is as good as any other: it goes on when there is room.
_FULL = (errno.ENOSPC, errno.EDQUOT)
# No waiting helps against these: a folder in its place, one that is not ours. supervisord says that it cannot start.
_HOPELESS = (errno.EISDIR, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP)


def install(logger: Any) -> None:
    """Have `logger`, supervisord's own, and every log that is opened from now on write through `LogFile`.

    What Python itself prints goes to the same disk.
    """
    loggers.handle_file = handle_file
    logger.handlers = [_lasting(handler) for handler in logger.handlers]
    sys.stdout, sys.stderr = _Printed(1), _Printed(2)


def handle_file(
    logger: Any, filename: str, fmt: str, rotating: bool = False, maxbytes: int = 0, backups: int = 0
) -> Any:
    """As supervisor.loggers.handle_file, the one place where supervisord opens a log."""
    handler = LogFile(filename, most_bytes=maxbytes if rotating else 0, backups=backups)
    handler.setFormat(fmt)
    handler.setLevel(logger.level)
    logger.addHandler(handler)
    return logger  # what 4.2 goes on with


def _lasting(handler: Any) -> Any:
    if not isinstance(handler, loggers.FileHandler):
        return handler
    most, backups = getattr(handler, "maxBytes", 0), getattr(handler, "backupCount", 0)
    ours = LogFile(handler.baseFilename, most_bytes=most, backups=backups)
    ours.setFormat(handler.fmt)
    ours.setLevel(handler.level)
    with suppress(OSError):  # what it holds back cannot be written either
        handler.close()
    return ours


class LogFile(loggers.Handler):  # type: ignore[misc]
    """A log at `path`, rotated at `most_bytes` (0: never) into `path`.1 to .`backups`. No method raises OSError, but
    making one does where `path` can never be a log.
    """

    def __init__(self, path: str, *, most_bytes: int, backups: int) -> None:
        super().__init__()
        self.baseFilename = path  # as supervisord's has it
        self._most_bytes = most_bytes
        self._backups = backups
        self._fd: int | None = None
        self._lost_bytes = 0
        self._why = ""
        self._is_file = False
        if (number := self._open()) in _HOPELESS:
            raise OSError(number, self._why, path)

    def emit(self, record: Any) -> None:
        try:
            raw = isinstance(record.msg, bytes) and self.fmt == "%(message)s"
            data = record.msg if raw else (self.fmt % record.asdict()).encode(errors="backslashreplace")
        except (TypeError, ValueError, KeyError):  # a line that cannot be put in words is nobody's end
            self.handleError()
            return
        self._write(data)
        self._rotate_if_due()

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None and fd > 2:
            with suppress(OSError):
                os.close(fd)

    def reopen(self) -> None:
        self.close()
        self._open()

    def remove(self) -> None:
        self.close()
        with suppress(OSError):
            Path(self.baseFilename).unlink()

    def _open(self) -> int:
        """The errno, 0 for none. Where that fails each line tries it again."""
        try:
            self._fd = logmodes.opener(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        except OSError as e:
            self._why = os.strerror(e.errno or 0)
            return e.errno or 0
        return 0

    def _write(self, data: bytes) -> None:
        if self._fd is None:
            self._open()
        if self._fd is None:
            self._lost_bytes += len(data)
            return
        left = self._told_loss() + data
        try:
            while left:
                left = left[os.write(self._fd, left) :]
            self._lost_bytes = 0
        except OSError as e:
            told = len(left) <= len(data)
            self._lost_bytes = len(left) if told else self._lost_bytes + len(data)
            self._why = os.strerror(e.errno or 0)
            if e.errno not in _FULL:
                self.close()

    def _told_loss(self) -> bytes:
        if not self._lost_bytes:
            return b""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return f"\n{now} emp: {self._lost_bytes} bytes are lost here: {self._why}\n".encode()

    def _rotate_if_due(self) -> None:
        fd = self._fd
        if self._most_bytes <= 0 or fd is None or not self._is_file:
            return
        with suppress(OSError):
            if os.lseek(fd, 0, os.SEEK_CUR) >= self._most_bytes:
                self._rotate(fd)

    def _rotate(self, full: int) -> None:
        """The next file is there before anything is moved: where none can be made, this one grows. Raises OSError."""
        if self._backups <= 0:
            os.ftruncate(full, 0)
            os.lseek(full, 0, os.SEEK_SET)
            return
        path = Path(self.baseFilename)
        older = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, self._backups + 1))]
        following = path.with_name(f".{path.name}.next")
        fd = logmodes.opener(str(following), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            for last, before in reversed(list(zip(older[1:], older, strict=False))):
                with suppress(FileNotFoundError):  # there are not so many yet, or somebody removed it
                    before.replace(last)
            following.replace(path)
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd


class _Printed(io.TextIOBase):
    """What is printed to descriptor `number`, as far as it can be."""

    def __init__(self, number: int) -> None:
        self._number = number

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(self._number, text.encode(errors="backslashreplace"))
        return len(text)
