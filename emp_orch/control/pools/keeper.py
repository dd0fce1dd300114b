"""The engines of a fleet's pools, as its emp.yaml has them, and what a look at the fleet sees of its pools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import structs

from emp_orch.control.pools.backlog import Backlogs
from emp_orch.control.pools.engine import Engine, Load
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import machine_of_member
from emp_orch.fleet.drift.slots import AT_WORK
from emp_orch.fleet.model.fleet import Fleet, MachineId, Pool, PoolName
from emp_orch.fleet.model.ids import machine_of
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.pools import JOIN, Backlog, SeenPool
from emp_orch.layout import Layout
from emp_orch.render.box import stop_grace_s
from emp_orch.runtimes.providers.base import Making, ProviderError
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
        self._tasks: dict[PoolName, asyncio.Task[None]] = {}
        self._fleet: Fleet | None = None

    async def look(self, fleet: Fleet, observed: Observed) -> Observed:
        """`observed` with what is seen of the pools of `fleet`. Raises what redis-py raises when Redis is away."""
        self._keep(fleet)
        self._fleet = fleet
        if not fleet.pools:
            return observed
        waiting = await self._backlogs.read(fleet)
        running = _running(fleet, observed)
        pools = {}
        for name in fleet.pools:
            engine = self._engines.get(name)
            seen = SeenPool() if engine is None else engine.seen
            mine = sum(w.jobs for w in waiting if name in w.pools)
            pools[name] = structs.replace(seen, backlog=Backlog(waiting=mine, running=running[name]))
        return structs.replace(observed, pools=pools, waiting=waiting)

    def engine(self, name: PoolName) -> Engine:
        """Raises ProviderError for a pool that has none."""
        found = self._engines.get(name)
        if found is None:
            raise ProviderError(f"the fleet has no pool {name} with an engine")
        return found

    def stop_s(self, pool: Pool) -> float:
        """How long a box of `pool` may take to end in good order, as a container of emp may."""
        if self._fleet is None:
            raise ProviderError(f"pool {pool.name} was not looked at yet")
        member = machine_of_member(pool, MachineId(f"{pool.name}-x"))
        return stop_grace_s(desired_machine(self._fleet, member))

    def _keep(self, fleet: Fleet) -> None:
        """Have the engines that `fleet` names, and no other."""
        wanted = {name: pool for name, pool in fleet.pools.items() if pool.provider != JOIN}
        for name, engine in list(self._engines.items()):
            if name not in wanted or _settings_of(engine.pool) != _settings_of(wanted[name]):
                del self._engines[name]
                self._tasks.pop(name).cancel()
        for name, pool in wanted.items():
            if name in self._engines:
                continue
            engine = Engine(pool, self._making(fleet, pool), self._wake, self._load)
            self._engines[name] = engine
            self._tasks[name] = self._group.create_task(engine.keep(), name=f"pool {name}")

    def _making(self, fleet: Fleet, pool: Pool) -> Making:
        return Making(
            fleet=fleet.name,
            pool=pool.name,
            options=pool.options,
            folder=str(self._layout.state),
            hosts=self._settings.hosts,
        )


def _settings_of(pool: Pool) -> tuple[object, ...]:
    return pool.provider, pool.options


def _running(fleet: Fleet, observed: Observed) -> dict[PoolName, int]:
    """Jobs on the members of each pool."""
    found = dict.fromkeys(fleet.pools, 0)
    pool_of = {m.id: m.pool for m in fleet.members}
    for worker_id, worker in observed.workers.items():
        pool = pool_of.get(machine_of(worker_id))
        if pool is not None and worker.report.status in AT_WORK:
            found[pool] += 1
    return found
