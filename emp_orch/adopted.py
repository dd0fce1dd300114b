"""Orphans that came to a supervisord and carry no mark, written down: once it is killed, nothing else tells of them.

`adopted/PID` beside `run/`, each in the form of an identity (lifemark). supervisord's extension writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from emp_orch.lifemark import leave
from emp_orch.procident import ProcessIdentity, alive, recorded

FOLDER = "adopted"


class Adopted:
    """Keeps the files of the supervisord in `root`. One that cannot be written is missing: nobody can wait for it."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._kept: set[ProcessIdentity] = set()

    def keep(self, orphans: Iterable[ProcessIdentity]) -> None:
        """`orphans` are all there are."""
        now = set(orphans)
        for who in self._kept - now:
            with suppress(OSError):
                self._path(who).unlink()
        for who in now - self._kept:
            with suppress(OSError):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                leave(str(self._path(who)), who.pid, who.start_ticks)
        self._kept = now

    def _path(self, who: ProcessIdentity) -> Path:
        return self._folder / str(who.pid)


def adopted(root: Path) -> list[ProcessIdentity]:
    """Those of the supervisord in `root` that live."""
    found = (recorded(path) for path in (root / FOLDER).glob("*"))
    return [who for who in found if who is not None and alive(who)]


def forget(root: Path) -> None:
    """Remove what tells of processes that have ended."""
    for path in (root / FOLDER).glob("*"):
        if (who := recorded(path)) is None or not alive(who):
            path.unlink(missing_ok=True)
