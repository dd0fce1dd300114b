"""The name a reconciler leads under: it tells, on the same host, whether its bearer still lives."""

from __future__ import annotations

import os

from emp_orch.procident import ProcessIdentity, alive, identify, place


def own() -> str:
    """`place:pid:start` of this process."""
    me = identify(os.getpid())
    return f"{place()}:{os.getpid()}:{me.start_ticks if me else 0}"


def is_dead(who: str) -> bool:
    """Whether the process called `who` is known to be dead. One elsewhere never is: nobody here can tell."""
    where, _, rest = who.partition(":")
    pid, _, ticks = rest.partition(":")
    if where != place() or not pid.isdigit() or not ticks.isdigit():
        return False
    return not alive(ProcessIdentity(pid=int(pid), start_ticks=int(ticks)))
