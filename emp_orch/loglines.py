"""Lines of emp's own logs: one for each record, whatever words it holds."""

from __future__ import annotations

import logging

from emp_orch.plaintext import many_lines, one_line


class LogLine(logging.Formatter):
    """One line for each record, however many its message has; a traceback follows, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # the base class names it
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        told = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(f"  {many_lines(line)}" for line in told.split("\n"))


def log_handler() -> logging.Handler:
    """What writes such lines to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogLine("%(asctime)s %(levelname)-7s %(message)s"))
    return handler
