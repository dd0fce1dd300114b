"""`diff` at the price of what changed: each machine's drift is kept, and worked out again only where it may differ.

A machine in order gets out of order only by a change or by silence; both are in `Observed.changed`. One that drifts is
looked at each time, since time alone can change what is to be said of it.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from emp_orch.fleet.drift.kinds import Desired, Drift
from emp_orch.fleet.drift.surplus import is_wanted
from emp_orch.fleet.drift.table import assembled, judged, unreadable_of
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import DamagedKey, Observed

K = TypeVar("K", bound=str)
V = TypeVar("V")


class Attention(Struct, frozen=True, kw_only=True):
    """Of whom the next look must tell when they were last heard, changed or not."""

    machines: frozenset[MachineId] = frozenset()
    workers: frozenset[WorkerId] = frozenset()


def in_full(observed: Observed, stale_after_ms: int) -> Observed:
    """A look by changes as one at everything: who neither changed nor is silent was heard within `stale_after_ms`."""
    changed = observed.changed
    if changed is None:
        return observed
    at_least_ms = observed.now_ms - stale_after_ms
    machines = {
        i: m if i in changed.machines or m.seen_ms >= at_least_ms else structs.replace(m, seen_ms=at_least_ms)
        for i, m in observed.machines.items()
    }
    workers = {
        i: w if i in changed.workers or w.seen_ms >= at_least_ms else structs.replace(w, seen_ms=at_least_ms)
        for i, w in observed.workers.items()
    }
    return structs.replace(observed, machines=machines, workers=workers, changed=None)


# Machines and workers that nobody wants, of whom is told: their number is the choice of whoever reports.
MAX_UNWANTED = 1_000


def bounded(observed: Observed, desired: Desired) -> Observed:
    """`observed` with no more than MAX_STRANGERS machines, workers and unreadable reports beyond those desired. Of the
    others their number is told."""
    machines = few(observed.machines, desired.machines)
    workers = few(observed.workers, desired.workers)
    malformed = observed.malformed[: len(desired.machines) + MAX_UNWANTED]
    left_out = len(observed.machines) - len(machines) + len(observed.workers) - len(workers)
    left_out += len(observed.malformed) - len(malformed)
    if not left_out:
        return observed
    many = DamagedKey(key="reports", expected=f"at most {MAX_UNWANTED} of strangers", found=f"{left_out} more")
    return structs.replace(
        observed,
        machines=machines,
        workers=workers,
        malformed=malformed,
        damaged=(*(d for d in observed.damaged if d.key != many.key), many),
    )


def few(reports: dict[K, V], wanted: Collection[K]) -> dict[K, V]:
    """All that are wanted, and at most MAX_STRANGERS others."""
    if len(reports) <= len(wanted) + MAX_UNWANTED:
        return reports
    unwanted = sorted(i for i in reports if i not in wanted)[:MAX_UNWANTED]
    kept = {*unwanted, *(i for i in reports if i in wanted)}
    return {i: report for i, report in reports.items() if i in kept}


class IncrementalDiff:
    """What `diff` said last, by machine, and who is there that nobody wants. Owned by one reconciler."""

    def __init__(self) -> None:
        self._desired: Desired | None = None
        self._drifts: dict[MachineId, Sequence[Drift]] = {}
        self._machines: set[MachineId] = set()
        self._workers: set[WorkerId] = set()

    @property
    def attention(self) -> Attention:
        return Attention(machines=frozenset(self._drifts.keys() | self._machines), workers=frozenset(self._workers))

    def diff(self, desired: Desired, observed: Observed) -> tuple[Drift, ...]:
        """As `fleet.drift.diff`."""
        changed = observed.changed if desired is self._desired else None
        self._desired = desired
        if changed is None:
            self._drifts = {}
            at: Collection[MachineId] = desired.machines
            self._machines = {i for i in _machines(observed) if i not in desired.machines}
            self._workers = {i for i in _workers(observed) if not is_wanted(i, desired)}
        else:
            # Time alone makes a drift of a member that does not come.
            touched = {*changed.machines, *map(machine_of, changed.workers), *self._drifts, *desired.unjoined}
            at = [i for i in touched if i in desired.machines]
            known_machines, known_workers = _machines(observed), _workers(observed)
            self._machines = {
                i for i in self._machines | changed.machines if i in known_machines and i not in desired.machines
            }
            self._workers = {
                i for i in self._workers | changed.workers if i in known_workers and not is_wanted(i, desired)
            }
        unreadable = unreadable_of(observed)
        for machine_id in at:
            drifts = judged(desired.machines[machine_id], desired, observed, unreadable)
            if drifts:
                self._drifts[machine_id] = drifts
            else:
                self._drifts.pop(machine_id, None)
        by_machine = [self._drifts[i] for i in sorted(self._drifts, key=desired.ranks.__getitem__)]
        return assembled(by_machine, desired, self._unwanted(observed))

    def _unwanted(self, observed: Observed) -> Observed:
        """`observed` with none but those that nobody wants."""
        return structs.replace(
            observed,
            machines={i: observed.machines[i] for i in self._machines if i in observed.machines},
            workers={i: observed.workers[i] for i in self._workers if i in observed.workers},
            instances={i: n for i, n in observed.instances.items() if i in self._machines},
        )


def _machines(observed: Observed) -> ChainMap[MachineId, object]:
    """Every machine that runs here or has a report, readable or not."""
    unread = {MachineId(m.id): None for m in observed.malformed if m.kind == "machine"}
    return ChainMap(unread, observed.instances, observed.machines)  # type: ignore[arg-type]


def _workers(observed: Observed) -> ChainMap[WorkerId, object]:
    unread = {WorkerId(m.id): None for m in observed.malformed if m.kind == "worker"}
    return ChainMap(unread, observed.workers)  # type: ignore[arg-type]
