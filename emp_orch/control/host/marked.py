"""The end of a fleet that only the marks of its processes tell of: without its `.emp/`, or from anywhere."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable
from threading import Event

from emp_orch import marks
from emp_orch.marks import SUPERVISORD, Marked
from emp_orch.procident import ProcessIdentity, alive, send, wait_end

# A machine whose configuration is gone: its supervisord gives each program the time that it knows of.
MACHINE_S = 120.0
PLANE_S = 60.0
GRACE_S = 10.0
KILL_S = 5.0
# Within this a person who presses Ctrl-C is heard.
CUT_S = 0.2
# Who is ended may begin another; more than this is somebody at work against us.
ROUNDS = 5

Find = Callable[[], Iterable[Marked]]


class _CutShort(Exception):
    """Whoever waits for us does so no longer."""


def end_marked(find: Find, tell: Callable[[str], None], cut: Event) -> list[ProcessIdentity]:
    """End all that `find` finds, machines first, each by its supervisord, so that workers give their jobs back.

    What outlives that is ended by force, with all that descends from it. Returns what lives on all the same. Blocks;
    once `cut` is set, nothing more is ended.
    """
    try:
        return _end_all(find, tell, cut)
    except _CutShort:
        return marks.with_descendants(find())


def _end_all(find: Find, tell: Callable[[str], None], cut: Event) -> list[ProcessIdentity]:
    found = list(find())
    planes = [one.who for one in found if one.mark.program == SUPERVISORD and not one.mark.machine]
    # Or it would start again what we stop: first the reconciler, which stays ended while its supervisord stands still.
    for who in planes:
        send(who, signal.SIGSTOP)
    try:
        reconcilers = (one.who for one in found if not one.mark.machine and one.mark.program == "reconcile")
        _end(reconcilers, GRACE_S, cut)
        machines = [one for one in found if one.mark.program == SUPERVISORD and one.mark.machine]
        if machines:
            tell(f"stopping {', '.join(sorted({one.mark.machine for one in machines}))}")
            _end((one.who for one in machines), MACHINE_S, cut)
        tell("stopping the control plane")
        for who in planes:
            send(who, signal.SIGTERM)
    finally:
        for who in planes:
            send(who, signal.SIGCONT)
    _await(planes, PLANE_S, cut)
    for _ in range(ROUNDS):
        left = marks.with_descendants(find())
        if not left:
            return []
        tell(f"ending {len(left)} process{'' if len(left) == 1 else 'es'} that were left")
        _end(left, GRACE_S, cut)
    return marks.with_descendants(find())


def _end(members: Iterable[ProcessIdentity], grace_s: float, cut: Event) -> None:
    """TERM, then KILL after `grace_s`."""
    asked = [who for who in members if send(who, signal.SIGTERM)]
    for who in asked:
        send(who, signal.SIGCONT)
    left = _await(asked, grace_s, cut)
    for who in left:
        send(who, signal.SIGKILL)
    _await(left, KILL_S, cut)


def _await(members: Iterable[ProcessIdentity], timeout_s: float, cut: Event) -> list[ProcessIdentity]:
    """Those of `members` that outlive `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    left = list(members)
    while left and (rest := deadline - time.monotonic()) > 0:
        if cut.is_set():
            raise _CutShort
        wait_end(left[0], min(CUT_S, rest))
        left = [who for who in left if alive(who)]
    return left
