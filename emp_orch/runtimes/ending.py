"""The end of a machine in good order: its programs with their drain, then supervisord, then whatever is left.

Who holds the machine's folder ends it so: the process runtime, and `emp machine --stay` around its supervisord.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from emp_orch.procident import ProcessIdentity
from emp_orch.runtimes.supervisor import AGENT, Supervisor

# What is left of a machine that has ended: until KILL.
ORPHAN_GRACE_S = 5.0
# Beyond a machine's drain: the time for its services to stop.
STOP_MARGIN_S = 30.0
DEFAULT_DRAIN_S = 60.0
# After its programs were stopped, supervisord has only the agent left.
SUPERVISORD_STOP_S = 20.0


class _Machine(Struct, frozen=True):
    drain_timeout_s: float


class _Config(Struct, frozen=True):
    """What we need of a machine's config.json (store/configs.MachineConfig)."""

    machine: _Machine


async def end_machine(root: Path, who: ProcessIdentity) -> None:
    """Stop the machine in `root`, whose supervisord is `who`. What outlives its deadlines is left to the caller."""
    # The agent goes last: it says that the machine stops, and takes its report away.
    keep, drain_s = frozenset({AGENT}), drain_timeout_s(root) + STOP_MARGIN_S
    await Supervisor(root).end(who, drain_s=drain_s, stop_s=SUPERVISORD_STOP_S, keep=keep)


def identities(root: Path) -> list[Path]:
    """Where everything that was ever started below `root` recorded itself: supervisord and its programs."""
    return sorted((root / "run").glob("*"))


def drain_timeout_s(root: Path) -> float:
    """How long this machine's workers may take to finish, by the configuration it runs."""
    try:
        return msgspec.json.decode((root / "config.json").read_bytes(), type=_Config).machine.drain_timeout_s
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return DEFAULT_DRAIN_S
