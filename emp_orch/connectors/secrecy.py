"""Keeps a job's secrets out of the log while a connector is at it, whoever writes: emp, the connector, a library."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from emp_orch.jobs.document.secrets import Redaction


class _Redacting(logging.Filter):
    def __init__(self, redaction: Redaction, formatter: logging.Formatter) -> None:
        super().__init__()
        self._redaction = redaction
        self._formatter = formatter

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self._redaction.text(record.getMessage()), None
        if record.exc_info:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._redaction.text(record.exc_text)
        return True


@contextmanager
def kept_out_of_the_log(redaction: Redaction) -> Iterator[None]:
    """Until the end of the block, the log's handlers write no value of the secrets, nor do tracebacks show one."""
    if not redaction:
        yield
        return
    filters = [(h, _Redacting(redaction, h.formatter or logging.Formatter())) for h in logging.getLogger().handlers]
    for handler, own in filters:
        handler.addFilter(own)
    try:
        yield
    finally:
        for handler, own in filters:
            handler.removeFilter(own)
