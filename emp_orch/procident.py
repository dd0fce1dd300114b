"""Who a process is: pid with start time, so that a reused pid is never mistaken for ours.

Source: proc(5). Linux only.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from msgspec import Struct


class ProcessIdentity(Struct, frozen=True, kw_only=True):
    """`start_ticks` is field 22 of /proc/PID/stat: clock ticks from boot to the process' start."""

    pid: int
    start_ticks: int


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state (field 3) on, or None when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of the live process `pid`; None when it is gone or a zombie."""
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return ProcessIdentity(pid=pid, start_ticks=int(fields[19]))


def alive(who: ProcessIdentity) -> bool:
    """Whether the very process `who` still lives (a zombie does not)."""
    return identify(who.pid) == who


def group_members(pgid: int) -> list[ProcessIdentity]:
    """The live processes of process group `pgid`."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    stats = ((pid, fields) for pid in pids if (fields := _stat(pid)) is not None)
    return [
        ProcessIdentity(pid=pid, start_ticks=int(fields[19]))
        for pid, fields in stats
        if fields[0] not in "ZX" and int(fields[2]) == pgid
    ]


def send(who: ProcessIdentity, sig: signal.Signals) -> bool:
    """Signal exactly `who`, through a pidfd so that a reused pid cannot be hit. False when it is gone."""
    try:
        fd = os.pidfd_open(who.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(who):
            return False
        signal.pidfd_send_signal(fd, sig)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def started_ms(who: ProcessIdentity) -> int:
    """When `who` started, ms since the epoch (to about 10 ms)."""
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    boot_s = time.time() - uptime_s
    return int((boot_s + who.start_ticks / os.sysconf("SC_CLK_TCK")) * 1000)
