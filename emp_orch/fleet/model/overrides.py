"""What people have said beside emp.yaml: pauses and drains, each with its reason."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, ProgramName


class OverrideKind(StrEnum):
    PAUSE = "pause"
    DRAIN = "drain"


class Override(Struct, frozen=True, kw_only=True):
    """One word of a person. With no machine it is about the whole fleet, with no program about all of the machine.

    `at` is RFC 3339 UTC.
    """

    kind: OverrideKind
    machine_id: MachineId | None = None
    program: ProgramName | None = None
    reason: str = ""
    by: str = ""
    at: str = ""

    @property
    def scope(self) -> str:
        """As people write it: `fleet`, `MACHINE` or `MACHINE/PROGRAM`."""
        return "/".join(filter(None, (self.machine_id, self.program))) or "fleet"

    @property
    def key(self) -> str:
        """Identifies the one word of this kind on this scope."""
        return f"{self.kind}:{self.scope}"

    @property
    def words(self) -> str:
        """The reason and who gave it."""
        return (self.reason or "no reason given") + (f" (by {self.by})" if self.by else "")
