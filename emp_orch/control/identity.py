"""The name a reconciler leads under: it tells, on the same host, whether its bearer still lives."""

from __future__ import annotations

import os
from pathlib import Path

from emp_orch.procident import ProcessIdentity, alive, identify


def _place() -> str:
    """This kernel's boot and our pid namespace: within it a pid with its start time means one process."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot[:13]}.{Path('/proc/self/ns/pid').stat().st_ino}"


def own() -> str:
    """`place:pid:start` of this process."""
    me = identify(os.getpid())
    return f"{_place()}:{os.getpid()}:{me.start_ticks if me else 0}"


def is_dead(who: str) -> bool:
    """Whether the process called `who` is known to be dead. One elsewhere never is: nobody here can tell."""
    place, _, rest = who.partition(":")
    pid, _, ticks = rest.partition(":")
    if place != _place() or not pid.isdigit() or not ticks.isdigit():
        return False
    return not alive(ProcessIdentity(pid=int(pid), start_ticks=int(ticks)))
