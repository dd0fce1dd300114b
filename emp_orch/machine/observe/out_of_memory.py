"""Whether the kernel has just killed something of this machine for want of memory: told beside an end, not guessed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from emp_orch.fleet.model.observed import OutOfMemory
from emp_orch.host.cgroup import MemoryCgroup, own_memory

# The kernel counts a moment before its parent hears of the end.
LATELY_S = 5.0


class OutOfMemoryWatch:
    """Looks at the count of the cgroup that all of the machine is in. `look` is called often: what it says of an end
    is only so near as the last look.
    """

    def __init__(
        self,
        cgroup: MemoryCgroup | None = None,
        *,
        inside: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`inside` a container, whose limit emp.yaml may have."""
        self._cgroup = cgroup or own_memory()
        self._inside = Path("/.dockerenv").exists() if inside is None else inside
        self._clock = clock
        self._kills = self._cgroup.kills()
        self._rose_at: float | None = None

    def look(self) -> None:
        kills = self._cgroup.kills()
        if kills is not None and self._kills is not None and kills > self._kills:
            self._rose_at = self._clock()
        self._kills = kills

    def lately(self) -> OutOfMemory | None:
        """What ran out, where something was killed for it within seconds."""
        self.look()
        if self._rose_at is None or self._clock() - self._rose_at > LATELY_S:
            return None
        return OutOfMemory(limit=self._cgroup.limit(), used=self._cgroup.most_used(), inside=self._inside)
