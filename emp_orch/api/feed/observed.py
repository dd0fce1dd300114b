"""All that the last look found, and how a look by changes brings it up to date."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from typing import Generic, TypeVar

from msgspec import Struct, structs

from emp_orch.api.feed.snapshot import Seen
from emp_orch.api.state import Whole
from emp_orch.api.views.fleet import DesiredMachineView, DriftView, MachineView, WorkerView
from emp_orch.api.views.pool_points import PointView, point_key
from emp_orch.api.views.pools import MemberView, member_view
from emp_orch.api.views.state import desired_views, drift_view, machine_view, worker_view
from emp_orch.errors import EmpError
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.policy.item import Item
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.members import Seen as Members
from emp_orch.store.fleet.status import FleetStatus
from emp_orch.store.reports.changes import Changes
from emp_orch.store.reports.reports import Reports

V = TypeVar("V", MachineView, WorkerView)


class _Rows(Generic[V]):
    """Views by id, and how many there are of each status."""

    def __init__(self, rows: Mapping[str, V]) -> None:
        self.rows: dict[str, V] = dict(rows)
        self.by_status = Counter(row.status for row in rows.values())

    def put(self, key: str, row: V | None) -> None:
        if (old := self.rows.pop(key, None)) is not None:
            self.by_status[old.status] -= 1
        if row is not None:
            self.rows[key] = row
            self.by_status[row.status] += 1


class Told(Struct, frozen=True, kw_only=True):
    """What other members mean: the machines and workers to read again, and what of both tables is another."""

    machines: frozenset[str] = frozenset()
    workers: frozenset[str] = frozenset()
    desired: Mapping[str, DesiredMachineView | None] = {}
    members: Mapping[str, MemberView | None] = {}


def courses_of(status: FleetStatus | EmpError | None) -> int:
    """When what is known of the pools' last day was last another."""
    return status.courses_ms if isinstance(status, FleetStatus) else 0


class ObservedState:
    """`mark` tells the generation from any other. Nothing in here waits, so it is of one look or of the next."""

    def __init__(self, whole: Whole, mark: str) -> None:
        state = whole.state
        self.machines = _Rows({m.machine_id: m for m in state.machines})
        self.workers = _Rows({w.worker_id: w for w in state.workers})
        self.generation = whole.generation
        self.number = state.fleet.generation
        self.mark = mark
        self.members = whole.members
        self.desired = {MachineId(m.id): m for m in state.fleet.machines}
        self.points = {point_key(p): p for p in state.points}
        self.courses_ms = courses_of(whole.status)
        self.stale_ms = state.fleet.stale_after_s * 1000
        self.status_text = whole.status_text
        self.status = whole.status
        drift = whole.status.drift if isinstance(whole.status, FleetStatus) else ()
        views = {d.key: d for d in state.drift}
        self.items: dict[str, tuple[Item, DriftView]] = {i.drift.key: (i, views[i.drift.key]) for i in drift}
        self.malformed = {(m.kind, m.id) for m in whole.malformed}
        self.silent_machines = frozenset(m.machine_id for m in state.machines if m.stale)
        self.silent_workers = frozenset(w.worker_id for w in state.workers if w.stale)
        self.slots: dict[str, dict[str, int]] = {}
        for w in state.workers:
            self.slots.setdefault(w.machine_id, {})[w.worker_id] = w.gpu

    def move_worker(self, key: str, row: WorkerView | None) -> Iterator[str]:
        """Note where worker `key` is now; the machines whose list of workers is another."""
        old = self.workers.rows.get(key)
        was = None if old is None else (old.machine_id, old.gpu)
        now = None if row is None else (row.machine_id, row.gpu)
        if was != now:
            if old is not None:
                self.slots[old.machine_id].pop(key, None)
                yield old.machine_id
            if row is not None:
                self.slots.setdefault(row.machine_id, {})[key] = row.gpu
                yield row.machine_id

    def workers_of(self, machine_id: str) -> list[str]:
        slots = self.slots.get(machine_id, {})
        return sorted(slots, key=lambda key: (slots[key], key))

    def asked(self, changes: Changes) -> tuple[set[str], set[str]]:
        """The machines and workers to read: what was written, fell silent or is heard again, or could not be read."""
        unread: dict[str, set[str]] = {"machine": set(), "worker": set()}
        for kind, subject in self.malformed:
            unread[kind].add(subject)
        machines = changes.machines | (changes.silent_machines ^ self.silent_machines) | unread["machine"]
        workers = changes.workers | (changes.silent_workers ^ self.silent_workers) | unread["worker"]
        return set(machines), set(workers)

    def populate(self, members: Members) -> Told:
        """Note the members of pools that there are now; what that means."""
        before = {m.id: m for m in self.members.members}
        after = {m.id: m for m in members.members}
        self.members = members
        others = {i: after.get(i) for i in before.keys() | after.keys() if before.get(i) != after.get(i)}
        desired = self._desire(self.generation, others.keys()) if isinstance(self.generation, Generation) else {}
        slots = {i: max(v.num_gpus if v else 0, len(self.slots.get(i, {}))) for i, v in desired.items()}
        return Told(
            machines=frozenset(desired),
            workers=frozenset(worker_id(MachineId(i), slot) for i, count in slots.items() for slot in range(count)),
            desired=desired,
            members={i: member_view(m) if m is not None else None for i, m in others.items()},
        )

    def _desire(self, generation: Generation, ids: Set[MachineId]) -> dict[str, DesiredMachineView | None]:
        """Note which of the machines `ids` are desired now; those of which that is another."""
        fleet = with_members(generation.fleet, self.members.members)
        self.generation = structs.replace(generation, fleet=fleet)
        machines = tuple(m for m in fleet.machines if m.id in ids)
        now = {MachineId(v.id): v for v in desired_views(structs.replace(fleet, machines=machines))}
        found = {i: now.get(i) for i in ids if self.desired.get(i) != now.get(i)}
        self.desired = {i: view for i, view in {**self.desired, **found}.items() if view is not None}
        return {str(i): view for i, view in found.items()}

    def tell_points(self, points: Mapping[str, PointView], courses_ms: int) -> Mapping[str, PointView]:
        """Note how the pools fared; what is as it was is the same object again."""
        known, self.courses_ms = self.points, courses_ms
        self.points = {key: known[key] if known.get(key) == p else p for key, p in points.items()}
        return self.points

    def update(self, changes: Changes, machines: set[str], workers: set[str], reports: Reports) -> Seen:
        """Note what `machines` and `workers` report now."""
        now_ms = changes.now_ms
        told_workers: dict[str, WorkerView | None] = {}
        crowds: set[str] = set()
        for key in workers:
            found = reports.workers.get(WorkerId(key))
            row = None if found is None else worker_view(found, now_ms, self.stale_ms)
            crowds.update(self.move_worker(key, row))
            self.workers.put(key, row)
            told_workers[key] = row
        told_machines: dict[str, MachineView | None] = {}
        for key in machines:
            seen = reports.machines.get(MachineId(key))
            told_machines[key] = (
                None
                if seen is None
                else machine_view(seen, now_ms, self.stale_ms, key in self.desired, self.workers_of(key))
            )
        for key in crowds - machines:
            if (old := self.machines.rows.get(key)) is not None:
                told_machines[key] = structs.replace(old, workers=self.workers_of(key))
        for key, machine in told_machines.items():
            self.machines.put(key, machine)
        self.silent_machines, self.silent_workers = changes.silent_machines, changes.silent_workers
        self.malformed = {(m.kind, m.id) for m in reports.malformed}
        return Seen(machines=told_machines, workers=told_workers)

    def tell_status(
        self, text: bytes | str | None, status: FleetStatus | EmpError | None
    ) -> tuple[dict[str, DriftView | None], bool]:
        """The drift that `status` tells, and whether it is another status; a view is made of what differs only."""
        if text == self.status_text and self.status is status:
            return {}, False
        self.status_text, self.status = text, status
        items = status.drift if isinstance(status, FleetStatus) else ()
        known = self.items
        self.items = {}
        for item in items:
            old = known.get(item.drift.key)
            self.items[item.drift.key] = old if old is not None and old[0] == item else (item, drift_view(item))
        return {key: view for key, (_, view) in self.items.items()}, True
