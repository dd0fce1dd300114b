"""`emp control --part NAME`: one daemon of the control plane as the main process of a container.

Its lines go to its file in logs/, rotated as supervisord would, and on to the container's own log.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from emp_orch import openfiles
from emp_orch.isolation import python
from emp_orch.layout import Layout
from emp_orch.loglines import LastingFile
from emp_orch.render.supervisord import CONTROL_PROGRAMS

LOG_BYTES = 20_000_000
LOG_BACKUPS = 3
LAST_LINES_S = 2.0
_LINE_BYTES = 65_536


def run_part(layout: Layout, name: str) -> int:
    """Run the daemon until it ends, and reap what it leaves behind; its exit code. SIGTERM and SIGINT go on to it."""
    openfiles.raise_soft()
    part = next(p for p in CONTROL_PROGRAMS if p.name == name)
    argv = python("-m", "emp_orch", "-C", str(layout.root), name)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda number, _: os.kill(child.pid, number))
    assert child.stdout is not None  # noqa: S101  # it is a pipe, as asked
    pump = threading.Thread(target=_pump, args=(child.stdout, layout.log(part.log)), name="log", daemon=True)
    pump.start()
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child.pid:
            pump.join(LAST_LINES_S)  # a grandchild may hold the pipe open
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _pump(lines: BinaryIO, path: Path) -> None:
    """Each line into the file at `path` and onto stdout. A full disk loses lines, not the daemon."""
    logging.raiseExceptions = False
    file = LastingFile(path, maxBytes=LOG_BYTES, backupCount=LOG_BACKUPS, encoding="utf-8", delay=True)
    while line := lines.readline(_LINE_BYTES):
        text = line.decode("utf-8", "backslashreplace").rstrip("\n")
        file.handle(logging.LogRecord("part", logging.INFO, "", 0, text, None, None))
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
