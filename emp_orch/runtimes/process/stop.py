"""The end of a machine in good order: its programs with their drain, then supervisord, then whatever is left.

Who holds the machine's folder ends it so: the process runtime, and `emp machine --stay` around its supervisord.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch import marks
from emp_orch.adopted import adopted, forget
from emp_orch.fleet.model.fleet import AGENT
from emp_orch.marks import SUPERVISORD, Mark, Marked
from emp_orch.procident import ProcessIdentity, end_recorded
from emp_orch.runtimes.limits import STOP_MARGIN_S, UNKNOWN_DRAIN_S
from emp_orch.runtimes.process.supervisor import Supervisor

# What is left of a machine that has ended: until KILL.
ORPHAN_GRACE_S = 5.0
# After its programs were stopped, supervisord has only the agent left.
SUPERVISORD_STOP_S = 20.0


class _Machine(Struct, frozen=True):
    drain_timeout_s: float


class _Config(Struct, frozen=True):
    """What we need of a machine's config.json (store/fleet/configs.MachineConfig)."""

    machine: _Machine


async def end_machine(root: Path, who: ProcessIdentity) -> None:
    """Stop the machine in `root`, whose supervisord is `who`. What outlives its deadlines is left to the caller."""
    # The agent goes last: it says that the machine stops, and takes its report away.
    keep, drain_s = frozenset({AGENT}), drain_timeout_s(root) + STOP_MARGIN_S
    await Supervisor(root).end(who, drain_s=drain_s, stop_s=SUPERVISORD_STOP_S, keep=keep)


def end_left(
    root: Path, mark: Mark, *, grace_s: float = ORPHAN_GRACE_S, unless: Callable[[], bool] | None = None
) -> None:
    """End what lives below `root` without its supervisord: what recorded itself there, and all that it began. Blocks.

    `mark` is that of the supervisord: what carries it, whatever program's, or came to it without one, with what
    descends from that. `unless` as in `end_recorded`.
    """
    came = [Marked(who, mark, "") for who in adopted(root)]
    end_recorded(identities(root), grace_s=grace_s, unless=unless, also=lambda: begun(mark, came))
    forget(root)


def begun(mark: Mark, came: Iterable[Marked] = ()) -> list[ProcessIdentity]:
    """All that the supervisord of `mark` has begun, and itself; of a program's mark, what that program has.

    `came`: more that are known to be its own.
    """
    one = None if mark.program == SUPERVISORD else mark.program
    found = (
        m
        for m in marks.marked()
        if m.mark.place == mark.place and m.mark.machine == mark.machine and one in (None, m.mark.program)
    )
    return marks.with_descendants([*came, *found])


def identities(root: Path) -> list[Path]:
    """Where everything that was ever started below `root` recorded itself: supervisord and its programs."""
    return sorted((root / "run").glob("*"))


def drain_timeout_s(root: Path) -> float:
    """How long this machine's workers may take to finish, by the configuration it runs."""
    try:
        return msgspec.json.decode((root / "config.json").read_bytes(), type=_Config).machine.drain_timeout_s
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return UNKNOWN_DRAIN_S
