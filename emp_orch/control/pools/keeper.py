"""The engines of a fleet's pools, as its emp.yaml has them, and what a look at the fleet sees of its pools."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from msgspec import structs

from emp_orch.control.pools.backlog import Backlogs
from emp_orch.control.pools.engine import ENDED_MARGIN_S, Engine, Load, box_stop_s, making_of
from emp_orch.control.pools.former import is_over, joined, settings_of
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.model.fleet import Fleet, MachineId, Pool, PoolName
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.pools import JOIN, Backlog, BoxState, SeenPool
from emp_orch.layout import Layout
from emp_orch.runtimes.providers.base import ProviderError
from emp_orch.runtimes.providers.registry import load
from emp_orch.settings import Settings
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class PoolKeeper:
    """One leader's. Engines are looked at in `group`; `wake` is called when one shows something else."""

    def __init__(
        self,
        r: Client,
        keys: Keys,
        layout: Layout,
        settings: Settings,
        group: asyncio.TaskGroup,
        wake: Callable[[], None],
        load: Load = load,
    ) -> None:
        self._layout = layout
        self._settings = settings
        self._group = group
        self._wake = wake
        self._load = load
        self._backlogs = Backlogs(r, keys)
        self._engines: dict[PoolName, Engine] = {}
        self._formers: dict[PoolName, list[Engine]] = {}
        self._tasks: dict[Engine, asyncio.Task[None]] = {}
        # Former engines that have nothing any more, by pool and settings.
        self._over: set[tuple[PoolName, str]] = set()
        # Since when only a former engine shows a box, of `time.monotonic`.
        self._at_former: dict[PoolName, dict[MachineId, float]] = {}
        # Until when boxes of members that were removed may be shown still, of `time.monotonic`.
        self._ending: dict[MachineId, float] = {}
        self._fleet: Fleet | None = None

    async def look(self, fleet: Fleet, observed: Observed, former: Mapping[PoolName, Iterable[Pool]] = {}) -> Observed:
        """`observed` with what is seen of the pools of `fleet`. `former`: as older generations had them, while they
        have members of then. Raises what redis-py raises when Redis is away.
        """
        self._keep(fleet)
        self._keep_former(fleet, former)
        self._fleet = fleet
        if not fleet.pools:
            return observed
        waiting = await self._backlogs.read(fleet)
        running = _running(fleet, observed)
        pools = {}
        for name in fleet.pools:
            seen = self._seen(name, fleet)
            mine = sum(w.jobs for w in waiting if name in w.pools)
            pools[name] = structs.replace(seen, backlog=Backlog(waiting=mine, running=running[name]))
        return structs.replace(observed, pools=pools, waiting=waiting)

    def engine(self, name: PoolName) -> Engine:
        """Raises ProviderError for a pool that has none."""
        found = self._engines.get(name)
        if found is None:
            raise ProviderError(f"the fleet has no pool {name} with an engine")
        return found

    def holders(self, name: PoolName, member_id: MachineId) -> list[Engine]:
        """Which engines may have the box of a member, none where somebody else starts them. Of several the former ones
        first.
        """
        now, formers = self._engines.get(name), self._formers.get(name, ())
        if now is not None and _lists(now, member_id):
            return [now]
        may = [e for e in formers if e.looked.seen.boxes is None or _lists(e, member_id)]
        return [*may, *([now] if now is not None else [])]

    def _seen(self, name: PoolName, fleet: Fleet) -> SeenPool:
        """What all engines of a pool show; who is at a former one is remembered."""
        engine, formers = self._engines.get(name), self._formers.get(name, [])
        now = engine.looked if engine is not None else None
        members = [m.id for m in fleet.members if m.pool == name] if formers else []
        since = self._at_former.get(name, {})
        seen, self._at_former[name] = joined(now, [e.looked for e in formers], members, since)
        return self._without_ending(seen, fleet)

    def given_back(self, member_id: MachineId, stop_s: float) -> None:
        """An engine took the word that the box of this member goes. It may show it for as long as that takes."""
        self._ending[member_id] = time.monotonic() + stop_s + ENDED_MARGIN_S

    def _without_ending(self, seen: SeenPool, fleet: Fleet) -> SeenPool:
        """Without the boxes that end as they were told, with their members: they are not nobody's yet. One that has
        ended is to be removed once more, where its engine keeps it.
        """
        now_s = time.monotonic()
        self._ending = {i: until_s for i, until_s in self._ending.items() if until_s > now_s}
        ending = self._ending.keys() - {m.id for m in fleet.members} if self._ending else frozenset()
        if not ending or seen.boxes is None:
            return seen
        kept = (b for b in seen.boxes if b.state is BoxState.ENDED or b.member_id not in ending)
        return structs.replace(seen, boxes=tuple(kept))

    def stop_s(self, pool: Pool) -> float:
        """How long a box of `pool` may take to end in good order, as a container of emp may."""
        if self._fleet is None:
            raise ProviderError(f"pool {pool.name} was not looked at yet")
        return box_stop_s(self._fleet, pool)

    def _keep(self, fleet: Fleet) -> None:
        """Have the engines that `fleet` names. One that is another now is a former one, until it has no box."""
        wanted = {name: pool for name, pool in fleet.pools.items() if pool.provider != JOIN}
        for name, engine in list(self._engines.items()):
            if name not in wanted or settings_of(engine.pool) != settings_of(wanted[name]):
                engine.retire()
                self._formers.setdefault(name, []).append(self._engines.pop(name))
        for name, pool in wanted.items():
            if name not in self._engines:
                self._engines[name] = self._again(name, pool) or self._begun(fleet, pool)
            self._over.discard((name, settings_of(pool)))

    def _again(self, name: PoolName, pool: Pool) -> Engine | None:
        """A former engine that is the one of now again."""
        formers = self._formers.get(name, [])
        found = next((e for e in formers if settings_of(e.pool) == settings_of(pool)), None)
        if found is not None:
            formers.remove(found)
        return found

    def _keep_former(self, fleet: Fleet, former: Mapping[PoolName, Iterable[Pool]]) -> None:
        """Have the engines that pools of `fleet` had before, and that may have boxes of theirs still."""
        for name, pools in former.items():
            now, known = self._engines.get(name), self._formers.setdefault(name, [])
            have = {settings_of(e.pool) for e in (*known, *([now] if now is not None else []))}
            for pool in pools:
                if settings_of(pool) not in have and (name, settings_of(pool)) not in self._over:
                    engine = self._begun(fleet, pool)
                    engine.retire()
                    known.append(engine)
                    have.add(settings_of(pool))
        for name, engines in self._formers.items():
            now = self._engines.get(name)
            for engine in list(engines):
                ended = is_over(now.looked if now is not None else None, engine.looked, engine.retired_s)
                if name not in fleet.pools or ended:
                    engines.remove(engine)
                    self._tasks.pop(engine).cancel()
                    self._over.add((name, settings_of(engine.pool)))

    def _begun(self, fleet: Fleet, pool: Pool) -> Engine:
        making = making_of(pool, fleet.name, self._layout, self._settings)
        engine = Engine(pool, making, self._wake, self._load)
        self._tasks[engine] = self._group.create_task(engine.keep(), name=f"pool {pool.name}")
        return engine


def _lists(engine: Engine, member_id: MachineId) -> bool:
    return any(box.member_id == member_id for box in engine.looked.seen.boxes or ())


def _running(fleet: Fleet, observed: Observed) -> dict[PoolName, int]:
    """Jobs on the members of each pool."""
    found = dict.fromkeys(fleet.pools, 0)
    pool_of = {m.id: m.pool for m in fleet.members}
    for worker_id, worker in observed.workers.items():
        pool = pool_of.get(machine_of(worker_id))
        if pool is not None and worker.report.status in AT_WORK:
            found[pool] += 1
    return found
