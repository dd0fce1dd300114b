"""The whole state in one look. It only reads: looking never changes what is looked at."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import chain
from typing import TypeVar

from msgspec import Struct, structs

from emp_orch import __version__
from emp_orch.api.views.fleet import (
    ApiView,
    DesiredMachineView,
    ReconcilerView,
    State,
    SystemStats,
)
from emp_orch.api.views.jobs import JobsView, read_jobs
from emp_orch.api.views.pool_points import PointView, point_views
from emp_orch.api.views.pools import member_view, pool_views
from emp_orch.api.views.state import counts_view, desired_views, drift_view, fleet_view, reconciler_view, report_views
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.incremental import few
from emp_orch.fleet.model.fleet import MachineId, Member
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import Malformed
from emp_orch.fleet.model.overrides import Override
from emp_orch.seals import Seal
from emp_orch.store.fleet.generations import Generation, generation_mark, read_generation
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.pools.courses import read_courses
from emp_orch.store.fleet.pools.members import Members, Seen, populated
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.fleet.status import FleetStatus, decode_status, read_status
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import MAX_FLEET_BYTES
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import read_reports
from emp_orch.web.times import now_ms, rfc3339

T = TypeVar("T")


class ApiStats:
    """What the API counts of itself."""

    def __init__(self) -> None:
        self.started_ms = now_ms()
        self.sse_clients = 0
        self.ws_clients = 0
        self.startup_events = 0
        self.gate_sockets = 0
        self.gate_refused = 0

    def view(self) -> ApiView:
        return ApiView(
            version=__version__,
            started_at=rfc3339(self.started_ms),
            uptime_s=round((now_ms() - self.started_ms) / 1000, 1),
            sse_clients=self.sse_clients,
            ws_clients=self.ws_clients,
        )


class Whole(Struct, frozen=True, kw_only=True):
    """A state, and what it was made of: `status_text` as it stands in Redis, `generation` with the `members`."""

    state: State
    malformed: tuple[Malformed, ...]
    generation: Generation | EmpError | None
    status: FleetStatus | EmpError | None
    status_text: bytes | str | None
    members: Seen


# Number, time and digest of a generation, and the members of its pools.
_Which = tuple[int, int, str, tuple[Member, ...]]


class StateReader:
    """Reads and composes. Between two looks it keeps only what a generation desires: that never changes.

    `seal` gives the fleet's key, to tell its own orders from others; None where it has none.
    """

    def __init__(
        self,
        r: Client,
        keys: Keys,
        fleet: str,
        queue: Queue,
        stats: ApiStats,
        seal: Callable[[], Seal | None] = lambda: None,
    ) -> None:
        self._r = r
        self._keys = keys
        self.fleet = fleet
        self._queue = queue
        self._stats = stats
        self._seal = seal
        self._retired = RetiredPools(r, keys)
        self.refuses = ""  # why Redis takes no writes, as far as we heard
        self._desired: tuple[_Which, tuple[DesiredMachineView, ...]] = ((0, 0, "", ()), ())

    def note(self, refuses: str) -> None:
        self.refuses = refuses

    async def overrides(self) -> tuple[Override, ...]:
        """What stands, as the reconciler takes it."""
        return await read_overrides(self._r, self._keys, self.fleet, self._seal())

    async def read(self) -> State:
        """Raises what redis-py raises when Redis is away."""
        return (await self.look()).state

    async def look(self) -> Whole:
        """All there is, with what it was made of. Raises as `read`."""
        members = await self.members()  # first: who comes meanwhile is another look's
        generation = await _or_error(self._generation(members))
        desired = self._desired_by(generation) if isinstance(generation, Generation) else ()
        workers_wanted = {worker_id(MachineId(m.id), slot) for m in desired for slot in range(m.num_gpus)}
        reports, status_text, overrides, jobs = await asyncio.gather(
            read_reports(self._r, self._keys, chain((m.id for m in desired), workers_wanted)),
            self.status_text(),
            self.overrides(),
            self.jobs(),
        )
        reports = structs.replace(
            reports,
            machines=few(reports.machines, {MachineId(m.id) for m in desired}),
            workers=few(reports.workers, workers_wanted),
        )
        status = self.decoded(status_text)
        reconciler = reconciler_view(status, reports.now_ms)
        fleet = fleet_view(self.fleet, generation, desired, status, reconciler, overrides, self.refuses)
        machines, workers = report_views(reports, fleet)
        points = await self.points(status)
        drift = [drift_view(d) for d in status.drift] if isinstance(status, FleetStatus) else []
        state = State(
            machines=machines,
            workers=workers,
            jobs=jobs,
            drift=drift,
            fleet=fleet,
            system_stats=self.stats_view(
                Counter(m.status for m in machines),
                Counter(w.status for w in workers),
                len(drift),
                len(reports.malformed),
                reconciler,
            ),
            pools=list(pool_views(generation, status).values()),
            members=[member_view(m) for m in sorted(members.members, key=lambda m: m.id)],
            points=sorted(points.values(), key=lambda p: (p.pool, p.at)),
        )
        return Whole(
            state=state,
            malformed=reports.malformed,
            generation=generation,
            status=status,
            status_text=status_text,
            members=members,
        )

    async def members(self, known: Seen | None = None) -> Seen:
        """Of all pools; `known` again where none changed since."""
        return await Members(self._r, self._keys, self.fleet, self._seal).read(known)

    async def points(self, status: FleetStatus | EmpError | None) -> dict[str, PointView]:
        """How the pools fared, by key; nothing is read where no leader of `status` wrote that."""
        if not isinstance(status, FleetStatus) or not status.courses_ms:
            return {}
        return point_views(await read_courses(self._r, self._keys, self.fleet))

    async def _generation(self, members: Seen) -> Generation | None:
        """The one in force, with `members` among its machines, also of pools that it names no more."""
        generation = await read_generation(self._r, self._keys, self.fleet)
        if generation is None:
            return None
        return populated(await self._retired.added(generation, members, None), members)

    async def _populated(self) -> Generation | None:
        return await self._generation(await self.members())

    async def pools(self) -> tuple[Generation | None, FleetStatus | EmpError | None]:
        """The generation in force with its members, and the leader's last word. Raises as `read`, and EmpError."""
        generation, status_text = await asyncio.gather(self._populated(), self.status_text())
        return generation, self.decoded(status_text)

    async def status_text(self) -> bytes | str | None:
        """As it stands in Redis, and not more of it than a status can have."""
        return await self._r.getrange(self._keys.status(self.fleet), 0, MAX_FLEET_BYTES) or None

    async def marks(self, number: int) -> tuple[str, str]:
        """What says, beside the number that was known, whether generation and members are the same still."""
        mark = await generation_mark(self._r, self._keys, self.fleet, number)
        generation, _, members = mark.rpartition(" ")
        return generation, members

    async def jobs(self) -> JobsView:
        return await read_jobs(self._queue)

    def decoded(self, status_text: bytes | str | None) -> FleetStatus | EmpError | None:
        """A damaged document is shown as an error, and hides nothing else."""
        try:
            return decode_status(status_text, self._keys.status(self.fleet))
        except EmpError as e:
            return e

    def stats_view(
        self,
        machines: Counter[str],
        workers: Counter[str],
        drift: int,
        malformed: int,
        reconciler: ReconcilerView,
    ) -> SystemStats:
        return SystemStats(
            machines=counts_view(machines),
            workers=counts_view(workers),
            drift=drift,
            malformed=malformed,
            redis={"ok": True},
            reconciler=reconciler,
            api=self._stats.view(),
        )

    def _desired_by(self, generation: Generation) -> tuple[DesiredMachineView, ...]:
        """What `generation` desires. For 1,000 machines that takes 200 ms to work out, so it is done once."""
        which = (generation.number, generation.at_ms, generation.digest, generation.fleet.members)
        if self._desired[0] != which:
            self._desired = (which, desired_views(generation.fleet))
        return self._desired[1]

    async def status(self) -> FleetStatus | None:
        return await read_status(self._r, self._keys, self.fleet)


async def _or_error(reading: Awaitable[T]) -> T | EmpError:
    """As `StateReader.decoded` has it."""
    try:
        return await reading
    except EmpError as e:
        return e
