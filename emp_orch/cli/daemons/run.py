"""What emp's daemons share at their entry: log lines on stderr, and signals that ask them to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from emp_orch.loglines import log_handler, plain_records


def log_to_stderr(*, gather: bool = False) -> None:
    """Plain lines with local time; supervisord captures them. `gather`: as of log_handler."""
    logging.basicConfig(handlers=[log_handler(gather=gather)], level=logging.INFO)
    plain_records()


@contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set. Call it inside the running loop."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    for sig in signals:
        loop.add_signal_handler(sig, stop.set)
    try:
        yield stop
    finally:
        for sig in signals:
            loop.remove_signal_handler(sig)
