"""What people have said beside emp.yaml: pauses, drains and sizes of pools, each with its reason."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from emp_orch.fleet.model.fleet import MachineId, PoolName, ProgramName


class OverrideKind(StrEnum):
    PAUSE = "pause"
    DRAIN = "drain"
    SCALE = "scale"


class Override(Struct, frozen=True, kw_only=True):
    """One word of a person. With no machine it is about the whole fleet, with no program about all of the machine; a
    SCALE is about a pool, which is to have `size` members.

    `at` is RFC 3339 UTC.
    """

    kind: OverrideKind
    machine_id: MachineId | None = None
    program: ProgramName | None = None
    reason: str = ""
    by: str = ""
    at: str = ""
    pool: PoolName = PoolName("")
    size: int = 0

    @property
    def scope(self) -> str:
        """As people write it: `fleet`, `MACHINE`, `MACHINE/PROGRAM` or `POOL`."""
        return self.pool or "/".join(filter(None, (self.machine_id, self.program))) or "fleet"

    @property
    def key(self) -> str:
        """Identifies the one word of this kind on this scope."""
        return f"{self.kind}:{self.scope}"

    @property
    def lifted_by(self) -> str:
        """What a person types to end it."""
        if self.kind is OverrideKind.SCALE:
            return f"emp scale {self.pool} auto"
        return " ".join(filter(None, ("emp resume", self.machine_id, self.program)))

    @property
    def what(self) -> str:
        """What holds: `paused`, `drained`, `held at 5`."""
        return {OverrideKind.PAUSE: "paused", OverrideKind.DRAIN: "drained"}.get(self.kind, f"held at {self.size}")

    @property
    def words(self) -> str:
        """The reason and who gave it."""
        return (self.reason or "no reason given") + (f" (by {self.by})" if self.by else "")
