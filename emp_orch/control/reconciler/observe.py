"""One look at the world: reports from Redis, machines from the runtimes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import chain
from typing import Protocol, TypeVar

from msgspec import structs

from emp_orch.fleet.drift.incremental import Attention, bounded
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.liveness import Visibility
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import Changed, DamagedKey, Instance, Malformed, Observed, ProgramReport
from emp_orch.fleet.model.package import Build
from emp_orch.fleet.model.runtimes import RuntimeKind, traits_of
from emp_orch.runtimes import all_instances
from emp_orch.runtimes.base import Runtime
from emp_orch.runtimes.external.runtime import ExternalRuntime
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.changes import (
    FULL_EVERY_S,
    Changes,
    began_anew,
    changes_since,
    current_seq,
    forget_old_changes,
)
from emp_orch.store.reports.reports import Reports, read_reports, read_some

Look = Callable[[], Awaitable[dict[str, ProgramReport]]]
LookAtDisk = Callable[[], Awaitable[Build | None]]

K = TypeVar("K")
V = TypeVar("V")

# Redis' clock and ours may differ by so much more from one look to the next: an answer takes its time.
JUMP_MS = 2_000


class Clock(Protocol):
    """This host's clocks, in seconds; the module `time` is one."""

    def time(self) -> float: ...

    def monotonic(self) -> float: ...


class Observer:
    """Looks again and again, and knows since when it has seen without a gap.

    Every look raises what redis-py raises when Redis is away: then everything is unknown, and nobody may act.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        runtimes: Mapping[RuntimeKind, Runtime],
        *,
        fresh: bool,
        parts: Look | None = None,
        installed: LookAtDisk | None = None,
        clock: Clock = time,
    ) -> None:
        self._r = r
        self._parts = parts
        self._installed = installed
        self._clock = clock
        self._keys = keys
        self._runtimes = runtimes
        # A one-off look (`emp diff`) takes the reports' ages as they are; a daemon that has just come up
        # may be looking at a Redis that was away, and gives everybody time to be heard.
        self._since_ms: int | None = None if fresh else 0
        self._seq = 0
        self._last: Observed | None = None
        self._sight = Visibility()
        self._desired: Desired | None = None
        self._full_at_s = 0.0
        self._ahead_ms: int | None = None

    def lost(self) -> None:
        """Reading failed: what is silent from now on may only be silent to us."""
        self._since_ms = None
        self._last = None
        self._sight = Visibility()

    async def look(self, desired: Desired | None = None) -> Observed:
        """All there is; of those that `desired` names whatever else there may be."""
        wanted = () if desired is None else chain(desired.machines, desired.workers)
        reports = await read_reports(self._r, self._keys, wanted)
        return Observed(
            now_ms=reports.now_ms,
            observing_since_ms=self._since(reports.now_ms),
            machines=reports.machines,
            workers=reports.workers,
            instances=await self._instances(reports.now_ms),
            answered=self._answered(),
            malformed=reports.malformed,
            parts=await self._parts() if self._parts else {},
            installed=await self._installed() if self._installed else None,
            shut_out=await self._shut_out(),
        )

    async def blind(self, damaged: tuple[DamagedKey, ...]) -> Observed:
        """A look where the reports cannot be read: nobody was heard, and nobody could be."""
        self.lost()
        now_ms = await time_ms(self._r)
        return Observed(
            now_ms=now_ms,
            observing_since_ms=self._since(now_ms),
            machines={},
            workers={},
            instances=await self._instances(now_ms),
            answered=self._answered(),
            parts=await self._parts() if self._parts else {},
            installed=await self._installed() if self._installed else None,
            shut_out=await self._shut_out(),
            damaged=damaged,
            blind=True,
        )

    async def follow(self, desired: Desired, attention: Attention) -> Observed:
        """As `look`, at the price of what changed since the last; what did not change is as it was.

        Of another `desired` than the last anybody may come to differ, and then it matters when they were heard: all is
        read.
        """
        last = self._last if desired is self._desired else None
        if last is not None and self._clock.monotonic() - self._full_at_s < FULL_EVERY_S:
            changes = await changes_since(self._r, self._keys, self._seq, stale_after_ms=desired.stale_after_ms)
            if not self._jumped(changes.now_ms) and changes.whole_since(self._seq):
                updated = await self._updated(last, changes, desired, attention)
                self._last = self._sight.after(bounded(updated, desired), desired)
                self._seq = changes.seq
                return self._last
        seq = await current_seq(self._r, self._keys)
        if began_anew(self._seq, seq):
            self.lost()
        self._last = self._sight.after(bounded(await self.look(desired), desired), desired)
        self._desired = desired
        self._seq = seq
        self._full_at_s = self._clock.monotonic()
        await forget_old_changes(self._r, self._keys, seq)
        return self._last

    async def _updated(self, last: Observed, changes: Changes, desired: Desired, attention: Attention) -> Observed:
        instances = await self._instances(changes.now_ms)
        known = instances.keys() | last.instances.keys()
        stirred = {i for i in known if _differs(instances.get(i), last.instances.get(i))}
        unread = {(m.kind, m.id) for m in last.malformed}
        workers = {
            *map(WorkerId, changes.workers | changes.silent_workers),
            *(WorkerId(i) for kind, i in unread if kind == "worker"),
        }
        machines = {
            *map(MachineId, changes.machines | changes.silent_machines),
            *(MachineId(i) for kind, i in unread if kind == "machine"),
            *stirred,
        }
        # What is to be said of a machine may depend on each of its workers.
        about = {*machines, *map(machine_of, workers), *attention.machines} - {MachineId("")}
        of_them = {w for i in about if (m := desired.machines.get(i)) is not None for w in m.workers}
        asked_workers = sorted({*workers, *attention.workers, *of_them})
        reports = await read_some(self._r, self._keys, changes.now_ms, sorted(about), asked_workers)
        return Observed(
            now_ms=changes.now_ms,
            observing_since_ms=self._since(changes.now_ms),
            machines=_merged(last.machines, sorted(about), reports.machines),
            workers=_merged(last.workers, asked_workers, reports.workers),
            instances=instances,
            answered=self._answered(),
            malformed=_malformed(last.malformed, about, asked_workers, reports),
            parts=await self._parts() if self._parts else {},
            installed=await self._installed() if self._installed else None,
            shut_out=await self._shut_out(),
            changed=Changed(machines=frozenset(machines), workers=frozenset(workers)),
            damaged=last.damaged,
        )

    def _answered(self) -> tuple[RuntimeKind, ...]:
        """Those whose machines can be seen: of them one that is not among the instances does not run."""
        return tuple(kind for kind in self._runtimes if traits_of(kind).seen)

    async def _shut_out(self) -> frozenset[MachineId]:
        external = next((r for r in self._runtimes.values() if isinstance(r, ExternalRuntime)), None)
        return frozenset() if external is None else await external.shut_out()

    def _since(self, now_ms: int) -> int:
        if self._since_ms is None or self._jumped(now_ms):
            self._since_ms = now_ms
        self._ahead_ms = self._ahead(now_ms)
        return self._since_ms

    def _jumped(self, now_ms: int) -> bool:
        """Whether Redis' clock was set since the last look: then no last report tells how long its writer is silent."""
        return self._ahead_ms is not None and abs(self._ahead(now_ms) - self._ahead_ms) > JUMP_MS

    def _ahead(self, now_ms: int) -> int:
        return now_ms - int(self._clock.monotonic() * 1000)

    async def _instances(self, now_ms: int) -> dict[MachineId, Instance]:
        # Runtimes tell times by this host's clock, and everything else by that of Redis.
        ahead_ms = now_ms - int(self._clock.time() * 1000)
        return {
            machine_id: structs.replace(found, started_ms=found.started_ms + ahead_ms)
            for machine_id, found in (await all_instances(self._runtimes)).items()
        }


def _differs(a: Instance | None, b: Instance | None) -> bool:
    """Whether a machine's life is another one. Its start moves with the two clocks."""
    if a is None or b is None:
        return a is not b
    return structs.replace(a, started_ms=0) != structs.replace(b, started_ms=0)


def _merged(before: dict[K, V], asked: list[K], found: Mapping[K, V]) -> dict[K, V]:
    if not asked:
        return before
    merged = dict(before)
    for subject in asked:
        if subject in found:
            merged[subject] = found[subject]
        else:
            merged.pop(subject, None)
    return merged


def _malformed(
    before: tuple[Malformed, ...], machines: set[MachineId], workers: list[WorkerId], reports: Reports
) -> tuple[Malformed, ...]:
    """Those that were not asked about again, and what the answer holds."""
    asked = {*(("machine", i) for i in machines), *(("worker", i) for i in workers)}
    return (*(m for m in before if (m.kind, m.id) not in asked), *reports.malformed)
