"""The emp on this host's disk, as whoever is started now would get it: an upgrade changes it under what runs."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import cache

from emp_orch import builds
from emp_orch.fleet.model.package import Build
from emp_orch.packing import digest_of, own_digest, pack
from emp_orch.resources import MODULES, data_files

log = logging.getLogger("reconcile")

# An upgrade that nobody has applied yet is in no hurry to be told.
EVERY_S = 10.0


@cache
def own_build() -> Build:
    """Of the very emp that runs here, as it was when this was asked first. Raises EmpError."""
    return Build(emp=own_digest(), supervision=builds.supervision_digest())


class Installed:
    """Looks at most each EVERY_S, and reads the files only when one of them is another."""

    def __init__(self) -> None:
        self._asked_s = -EVERY_S
        self._stamp: object = None
        self._build: Build | None = None

    async def look(self) -> Build | None:
        """None while it cannot be read, as in the midst of an upgrade."""
        if time.monotonic() - self._asked_s >= EVERY_S:
            self._asked_s = time.monotonic()
            await asyncio.to_thread(self._read)
        return self._build

    def _read(self) -> None:
        try:
            stamp = _stamp()
            if stamp == self._stamp:
                return
            build = Build(emp=digest_of(pack(MODULES, data_files())), supervision=builds.supervision_digest())
            # What changed while it was read is read again the next time.
            self._stamp, self._build = (stamp, build) if _stamp() == stamp else (None, None)
        except (OSError, StopIteration) as e:
            log.warning("emp's own files cannot be read: %s", e)
            self._stamp = self._build = None


def _stamp() -> object:
    """As `builds.stamp`, of the Lua scripts too. Raises OSError."""
    scripts = ((str(path), path.stat()) for path in MODULES.rglob("*.lua"))
    return builds.stamp(), sorted((path, s.st_mtime_ns, s.st_size) for path, s in scripts)
