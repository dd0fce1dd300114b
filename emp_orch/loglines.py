"""Lines of emp's own logs: one for each record, whatever words it holds."""

from __future__ import annotations

import logging
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from emp_orch.plaintext import many_lines, one_line


class LogLine(logging.Formatter):
    """One line for each record, however many its message has; a traceback follows, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # the base class names it
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        told = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  {many_lines(line)}" for line in told.split("\n"))


class LastingFile(RotatingFileHandler):
    """A rotated file that is made again when somebody removed it; its folder too, where that lies in one."""

    def emit(self, record: logging.LogRecord) -> None:
        path = Path(self.baseFilename)
        if self.stream is not None and not path.exists() and path.parent.parent.is_dir():
            self.stream.close()
            self.stream = None  # opened at the next line
            with suppress(OSError):
                path.parent.mkdir(exist_ok=True)
        super().emit(record)


def log_handler() -> logging.Handler:
    """What writes such lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLine("%(asctime)s %(levelname)-7s %(message)s"))
    return handler
