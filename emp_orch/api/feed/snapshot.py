"""The state as clients know it: each thing encoded once, a number for each change, what changed, and the whole of it.

Pure: what was seen and the time come in, bytes go out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from emp_orch.api.views.fleet import (
    DesiredMachineView,
    DriftView,
    FleetView,
    MachineView,
    State,
    SystemStats,
    WorkerView,
    steady,
)
from emp_orch.api.views.jobs import JobView
from emp_orch.api.views.pool_points import PointView, point_key
from emp_orch.api.views.pools import MemberView, PoolView

V = TypeVar("V", bound=Struct)

encode = msgspec.json.encode


class Seen(Struct, kw_only=True):
    """What one look found. A table is a map id → view, None: it is gone; what is not named is as it was.

    `whole` names the tables that are told whole: of these, what is not named is gone.
    """

    machines: Mapping[str, MachineView | None] = {}
    workers: Mapping[str, WorkerView | None] = {}
    drift: Mapping[str, DriftView | None] = {}
    desired: Mapping[str, DesiredMachineView | None] = {}
    active: Mapping[str, JobView | None] = {}
    pools: Mapping[str, PoolView | None] = {}
    members: Mapping[str, MemberView | None] = {}
    points: Mapping[str, PointView | None] = {}
    whole: frozenset[str] = frozenset()
    counts: Mapping[str, int] | None = None
    fleet: FleetView | None = None
    system_stats: SystemStats | None = None


TABLES = ("machines", "workers", "drift", "desired", "active", "pools", "members", "points")


def seen_whole(state: State) -> Seen:
    """`state` as a look that names everything."""
    return Seen(
        machines={m.machine_id: m for m in state.machines},
        workers={w.worker_id: w for w in state.workers},
        drift={d.key: d for d in state.drift},
        desired={m.id: m for m in state.fleet.machines},
        active={j.job_id: j for j in state.jobs.active},
        pools={p.name: p for p in state.pools},
        members={m.id: m for m in state.members},
        points={point_key(p): p for p in state.points},
        whole=frozenset(TABLES),
        counts=state.jobs.counts,
        fleet=state.fleet,
        system_stats=state.system_stats,
    )


class _Changed(Struct):
    """Of one table: what is to be set, encoded, and what is gone."""

    set: dict[str, bytes]
    gone: list[str]


class Table(Generic[V]):
    """Things of one kind by id, each with its bytes. `rank` orders them; None: they stay as they were last told."""

    def __init__(self, rank: Callable[[V], Any] | None = None) -> None:
        self._rank = rank
        self._rows: dict[str, V] = {}
        self._bytes: dict[str, bytes] = {}
        self._in_order = True

    def take(self, told: Mapping[str, V | None], *, whole: bool) -> _Changed:
        changed = _Changed({}, [])
        for key, row in told.items():
            if row is None:
                self._drop(key, changed)
            elif (old := self._rows.get(key)) is not row:
                self._put(key, old, row, changed)
        if whole:
            for key in [k for k in self._rows if k not in told]:
                self._drop(key, changed)
            if self._rank is None and list(told) != list(self._rows):
                self._rows = {k: self._rows[k] for k in told}
        return changed

    def _put(self, key: str, old: V | None, row: V, changed: _Changed) -> None:
        self._rows[key] = row
        self._bytes[key] = encode(row)
        if old is None or (self._rank is not None and self._rank(old) != self._rank(row)):
            self._in_order = False
        if old is None or steady(old) != steady(row):
            changed.set[key] = self._bytes[key]

    def _drop(self, key: str, changed: _Changed) -> None:
        if self._rows.pop(key, None) is not None:
            del self._bytes[key]
            changed.gone.append(key)

    def listed(self) -> bytes:
        """All of them, as a JSON list."""
        if self._rank is not None and not self._in_order:
            rank = self._rank
            self._rows = dict(sorted(self._rows.items(), key=lambda row: rank(row[1])))
            self._in_order = True
        return b"[" + b",".join(map(self._bytes.__getitem__, self._rows)) + b"]"


class Snapshot:
    """`revision` rises by one with every delta."""

    def __init__(self) -> None:
        self.revision = 0
        self._machines: Table[MachineView] = Table(lambda m: m.machine_id)
        self._workers: Table[WorkerView] = Table(lambda w: (w.machine_id, w.gpu, w.worker_id))
        self._drift: Table[DriftView] = Table()
        self._desired: Table[DesiredMachineView] = Table()
        self._active: Table[JobView] = Table()
        self._pools: Table[PoolView] = Table()
        self._members: Table[MemberView] = Table(lambda m: m.id)
        self._points: Table[PointView] = Table(lambda p: (p.pool, p.at))
        self._fleet = b"{}"
        self._counts = b"{}"
        self._stats: SystemStats | None = None
        self._whole: bytes | None = None

    def take(self, seen: Seen, timestamp: str) -> bytes | None:
        """Note what was seen; what `delta` carries, or None when nothing differs."""
        told = {
            "machines": self._machines.take(seen.machines, whole="machines" in seen.whole),
            "workers": self._workers.take(seen.workers, whole="workers" in seen.whole),
            "drift": self._drift.take(seen.drift, whole="drift" in seen.whole),
            "desired": self._desired.take(seen.desired, whole="desired" in seen.whole),
            "pools": self._pools.take(seen.pools, whole="pools" in seen.whole),
            "members": self._members.take(seen.members, whole="members" in seen.whole),
            "points": self._points.take(seen.points, whole="points" in seen.whole),
        }
        active = self._active.take(seen.active, whole="active" in seen.whole)
        changed = {name: _object(table.set) for name, table in told.items() if table.set}
        jobs = {"active": _object(active.set)} if active.set else {}
        if seen.counts is not None and (counts := encode(seen.counts)) != self._counts:
            self._counts = jobs["counts"] = counts
        if jobs:
            changed["jobs"] = _object(jobs)
        if seen.fleet is not None and (fleet := _without_machines(seen.fleet)) != self._fleet:
            self._fleet = changed["fleet"] = fleet
        if (stats := seen.system_stats) is not None:
            if self._stats is None or steady(stats) != steady(self._stats):
                changed["system_stats"] = encode(stats)
            self._stats = stats
        gone = {name: table.gone for name, table in {**told, "jobs": active}.items() if table.gone}
        self._whole = None
        if not changed and not gone:
            return None
        self.revision += 1
        head = {"revision": self.revision, "base": self.revision - 1, "timestamp": timestamp}
        return encode({**head, "set": msgspec.Raw(_object(changed)), "gone": gone})

    def whole(self) -> bytes:
        """`State`, encoded; joined once for each change."""
        if self._whole is None:
            fleet = self._fleet[:-1] + (b"," if len(self._fleet) > 2 else b"") + b'"machines":' + self._desired.listed()
            parts = {
                "machines": self._machines.listed(),
                "workers": self._workers.listed(),
                "jobs": _object({"counts": self._counts, "active": self._active.listed()}),
                "drift": self._drift.listed(),
                "fleet": fleet + b"}",
                "system_stats": encode(self._stats),
                "pools": self._pools.listed(),
                "members": self._members.listed(),
                "points": self._points.listed(),
            }
            self._whole = _object(parts)
        return self._whole


def _object(parts: Mapping[str, bytes]) -> bytes:
    """A JSON object of values that are encoded already."""
    return b"{" + b",".join(_members(parts.items())) + b"}"


def _members(parts: Iterable[tuple[str, bytes]]) -> Iterable[bytes]:
    for name, value in parts:
        yield encode(name) + b":" + value


def _without_machines(fleet: FleetView) -> bytes:
    fields = msgspec.structs.asdict(fleet)
    del fields["machines"]
    return encode(fields)
