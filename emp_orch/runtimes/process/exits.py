"""How a program of a supervisord ended last: the one look-up, for machines and for the control plane. docs/adr/0016.

supervisord's log says how, the program's own log its last words.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from emp_orch.fleet.model.observed import ProgramEnd
from emp_orch.runtimes.last_words import began, last_words
from emp_orch.runtimes.process.supervisor_log import last_end


class Logs(Struct, frozen=True, kw_only=True):
    """Where one supervisord and its programs write. `run`: the folder of the programs' identities."""

    own: Path
    programs: Path
    run: Path


def look_up(logs: Logs, name: str, secrets: Iterable[str], *, pid: int = 0, since_ms: int = 0) -> ProgramEnd | None:
    """The last unasked end of `name` after `since_ms`, or that of its process `pid`; None: nothing tells of one.

    Blocks for a moment: it reads at most some hundred kilobytes.
    """
    found = last_end(logs.own, name, pid)
    if found is None or found.at_ms < since_ms:
        return None
    return ProgramEnd(
        at_ms=found.at_ms,
        pid=found.pid,
        exit_status=found.exit_status,
        signal=found.signal,
        lived_ms=max(1, found.at_ms - found.began_ms) if found.began_ms else 0,
        left=found.left,
        lines=last_words(logs.programs / f"{name}.log", found.pid, began(logs.run, name, found.pid), secrets),
    )
