"""How many machines may be out at once. A number counts all machines of the fleet together; a per cent counts each
pool by its members that are in, and the machines that emp.yaml names: a pool that is all out is no part of a larger
fleet's share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MachineId

# What is counted together: a pool by its name, the named machines, or the whole fleet.
Group = str
NAMED: Final = ""


def group_of(desired: Desired, machine_id: MachineId) -> Group:
    member = desired.members.get(machine_id) if desired.max_unavailable_percent is not None else None
    return NAMED if member is None else member.pool


class Allowance:
    """Counts, per group, the machines that are `out`."""

    def __init__(self, desired: Desired, out: Iterable[MachineId]) -> None:
        self._desired = desired
        self._out: dict[Group, set[MachineId]] = {}
        for machine_id in out:
            self.add(machine_id)

    def add(self, machine_id: MachineId) -> None:
        self._out.setdefault(group_of(self._desired, machine_id), set()).add(machine_id)

    def __contains__(self, machine_id: MachineId) -> bool:
        return machine_id in self.beside(machine_id)

    def beside(self, machine_id: MachineId) -> set[MachineId]:
        """Those that are out and count together with it."""
        return self._out.get(group_of(self._desired, machine_id), set())

    def full(self) -> frozenset[Group]:
        """Groups of which no further machine may be out."""
        most = limits(self._desired)
        return frozenset(g for g, out in self._out.items() if len(out) >= most.get(g, self._desired.max_unavailable))


def limits(desired: Desired) -> dict[Group, int]:
    """How many of each group may be out: at least one. Of a pool those count that are in and are to stay."""
    percent = desired.max_unavailable_percent
    if percent is None:
        return {NAMED: desired.max_unavailable}
    there = Counter(
        group_of(desired, i) for i in desired.machines if i not in desired.unjoined and not desired.is_leaving(i)
    )
    return {group: max(1, count * percent // 100) for group, count in there.items()}


def full(desired: Desired, out: Iterable[MachineId]) -> frozenset[Group]:
    """Groups of which as many are `out` as may be."""
    return Allowance(desired, out).full()
