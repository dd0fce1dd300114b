"""Lines of emp's own logs: one for each record, whatever words it holds."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from emp_orch import logmodes
from emp_orch.plaintext import many_lines, one_line


class LogLine(logging.Formatter):
    """One line for each record, however many its message has; a traceback follows, indented."""

    _second = (-1, "")  # the last second that was told, and its text

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # the base class names it
        """As the base class does it, with the text of a second made once."""
        second = int(record.created)
        if self._second[0] != second:
            self._second = (second, time.strftime(self.default_time_format, self.converter(record.created)))
        told = self._second[1]
        return self.default_msec_format % (told, record.msecs) if self.default_msec_format else told

    def formatMessage(self, record: logging.LogRecord) -> str:  # the base class names it
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        told = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  {many_lines(line)}" for line in told.split("\n"))


class LastingFile(RotatingFileHandler):
    """A rotated file that is made again when somebody removed it; its folder too, where that lies in one."""

    def _open(self) -> TextIOWrapper:
        """As the base class does it, but for the modes of a file that is new."""
        raw = logmodes.opener(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return os.fdopen(raw, "a", encoding=self.encoding, errors=self.errors)

    def emit(self, record: logging.LogRecord) -> None:
        path = Path(self.baseFilename)
        if self.stream is not None and not path.exists() and path.parent.parent.is_dir():
            self.stream.close()
            self.stream = None  # opened at the next line
            with suppress(OSError):
                logmodes.make_folder(path.parent)
        super().emit(record)


# So long a line may wait for others: each write wakes supervisord, which takes a core from whoever is at a job.
GATHER_S = 0.1


class Gathering(logging.StreamHandler):  # type: ignore[type-arg]  # of text; it is generic for type checkers only
    """Lines to stderr; in a running loop those below WARNING wait a moment for others, and go out in one write.

    A warning goes out at once, with all that waits before it; so does everything at the end of the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # in which a write is due

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001  # as every handler of the library does
            self.handleError(record)
        if record.levelno >= logging.WARNING or not self._is_due():
            self.flush()

    def _is_due(self) -> bool:
        """Whether the loop that runs here writes in a moment what waits."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(GATHER_S, self._write_due)
        return True

    def _write_due(self) -> None:
        self._loop = None
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            text = "".join(self._waiting)
            self._waiting.clear()
            if text:
                self.stream.write(text)
            super().flush()
        except (OSError, ValueError):  # nobody reads stderr any more, or it is closed: there is nobody to tell
            return
        finally:
            self.release()


def plain_records() -> None:
    """Have no record of this process say where in the code it comes from, nor from which thread: no line shows it, and
    to find it out takes as long as the rest of a line (logging's HOWTO, "Optimization").
    """
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def log_handler(*, gather: bool = False) -> logging.Handler:
    """What writes such lines to stderr. `gather`: for a daemon that writes many."""
    handler = Gathering() if gather else logging.StreamHandler()
    handler.setFormatter(LogLine("%(asctime)s %(levelname)-7s %(message)s"))
    return handler
