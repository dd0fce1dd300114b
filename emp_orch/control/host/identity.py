"""Who acts: the name a reconciler leads under, which tells here whether its bearer still lives; a person."""

from __future__ import annotations

import os

from emp_orch.host.users import name_of
from emp_orch.lifemark import place
from emp_orch.procident import ProcessIdentity, alive, identify


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


def person() -> str:
    """The user that this process works for, as the history says who published a generation."""
    return name_of(os.getuid())
