"""Another agent under this machine's id: what was found in the place of our report, and for how long it counts."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from emp_orch.fleet.model.observed import MachineReport
from emp_orch.plaintext import one_line
from emp_orch.store.redis.damaged import DAMAGED

# So long after its last word a rival is taken for gone.
RIVAL_S = 10.0
MAX_SHOWN = 100


class Rival(Struct, frozen=True):
    """Who wrote a machine's report; the names that it gave itself."""

    boot_id: str
    host: str

    def __str__(self) -> str:
        return f"{self.boot_id} on {self.host}"


class Rivals:
    """Knows the last rival. Times are seconds of a clock that only rises."""

    def __init__(self) -> None:
        self._rival: Rival | None = None
        self._until_s = 0.0

    def current(self, now_s: float) -> str:
        """The rival at `now_s`, as the report names it; empty when there is none."""
        return str(self._rival) if self._rival is not None and now_s < self._until_s else ""

    def heard(self, mine: MachineReport, document: str, now_s: float) -> Rival | None:
        """Somebody else wrote, and `document` is what was there. Returns the rival when it is a new one.

        A document of our own, or one that nobody can read, comes with another's heartbeat: the one we know of.
        """
        rival = _writer(document)
        if rival is None or rival == Rival(mine.boot_id, mine.host):
            if self.current(now_s):
                self._until_s = now_s + RIVAL_S
            return None
        new = self.current(now_s) != str(rival)
        self._rival, self._until_s = rival, now_s + RIVAL_S
        return rival if new else None


def _writer(document: str) -> Rival | None:
    try:
        found = msgspec.json.decode(document, type=Rival)
    except DAMAGED:
        return None
    return Rival(one_line(found.boot_id)[:MAX_SHOWN], one_line(found.host)[:MAX_SHOWN])
