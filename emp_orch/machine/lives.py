"""Ends of programs, told by the kernel: a pidfd a process.

supervisord looks for ended children once a second. Any call wakes it, so the agent calls the moment a process
ends, and the replacement runs within milliseconds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from emp_orch.fleet.model import ProgramName
from emp_orch.machine.programs import Programs


class Lives:
    """Watches the processes in `programs`; `on_end(name, pid)` is called when one ends. Use as a context manager."""

    def __init__(self, programs: Programs, on_end: Callable[[ProgramName, int], None]) -> None:
        self._programs = programs
        self._on_end = on_end
        self._watched: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self._watched):
            self._forget(pid)

    def follow(self) -> None:
        """Watch every process that is not watched yet."""
        for name, report in self._programs.reports.items():
            if report.pid and report.pid not in self._watched:
                try:
                    fd = os.pidfd_open(report.pid)
                except ProcessLookupError:
                    self._on_end(name, report.pid)
                    continue
                self._watched[report.pid] = fd
                self._loop.add_reader(fd, self._ended, name, report.pid)

    def _ended(self, name: ProgramName, pid: int) -> None:
        self._forget(pid)
        self._on_end(name, pid)

    def _forget(self, pid: int) -> None:
        fd = self._watched.pop(pid)
        self._loop.remove_reader(fd)
        os.close(fd)
