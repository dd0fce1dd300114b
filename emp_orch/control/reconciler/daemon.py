"""The reconciler's process: builds its adapters, runs until SIGTERM, gives the lease back."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from emp_orch import again
from emp_orch.control.host import identity
from emp_orch.control.jobs.upkeep import JobUpkeep
from emp_orch.control.leader.execute import Executor
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.plane.installed import Installed
from emp_orch.control.plane.parts import Parts
from emp_orch.control.pools.hands import Hands
from emp_orch.control.pools.keeper import PoolKeeper
from emp_orch.control.reconciler.loop import Loop
from emp_orch.control.reconciler.observe import Observer
from emp_orch.control.reconciler.operations import Operations
from emp_orch.control.reconciler.redis_backend import RedisBackend, write_journal
from emp_orch.control.reconciler.rounds import Reconciler
from emp_orch.control.upkeep.key_handover import KeyHandover
from emp_orch.control.upkeep.logins import LoginKeeper
from emp_orch.control.upkeep.redis_watch import RedisWatch
from emp_orch.control.upkeep.script_keeper import ScriptKeeper
from emp_orch.fleet.journal.entries import Entry
from emp_orch.layout import Layout
from emp_orch.procident import recorded
from emp_orch.runtimes import all_instances, runtimes_of
from emp_orch.runtimes.keys.logins import MachineLogins
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.process.log_keeper import keep_logs
from emp_orch.settings import Settings, held_secrets
from emp_orch.store.artifacts.store import Artifacts
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.redis import client
from emp_orch.store.redis.client import TRANSIENT, Client, address
from emp_orch.store.redis.keys import Keys

log = logging.getLogger("reconcile")


async def run_reconciler(layout: Layout, settings: Settings) -> None:
    """Reconcile the fleet of `layout` until SIGTERM or SIGINT."""
    name = f"emp:reconcile:{settings.fleet}"
    r = client.client(settings.redis_url, owner=settings.redis_owner, most=client.RECONCILER_CONNECTIONS, name=name)
    keys, who = Keys(settings.prefix), identity.own()
    election = LeaderElection(r, keys, settings.fleet, who, epochs=layout.control / "epoch")
    log.info("reconciler of fleet %s: %s", settings.fleet, who)
    work = asyncio.create_task(_reconcile(r, keys, layout, settings, election))
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, work.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await work
    finally:
        with suppress(*TRANSIENT):
            await election.resign()
        await r.aclose()
    log.info("reconciler stopped")


async def _reconcile(r: Client, keys: Keys, layout: Layout, settings: Settings, election: LeaderElection) -> None:
    """Build the parts and run them until cancelled."""
    async with asyncio.TaskGroup() as group:
        reconciler, backend = built(r, keys, layout, settings, election, group, wake=lambda: running.wake())
        running = Loop(r, keys, reconciler, backend, election)
        supervisord = recorded(layout.control / "run" / "supervisord")
        if supervisord is not None:  # none where its parts are containers
            group.create_task(keep_logs(supervisord, [layout.logs], above=layout.root), name="logs")
        for part in running.parts():
            group.create_task(part)


def built(
    r: Client,
    keys: Keys,
    layout: Layout,
    settings: Settings,
    election: LeaderElection,
    group: asyncio.TaskGroup,
    wake: Callable[[], None],
) -> tuple[Reconciler, RedisBackend]:
    """A reconciler and its world; what it starts runs in `group`, and `wake` is called when something of that ended."""
    logins = MachineLogins(layout, settings)
    runtimes = runtimes_of(layout, settings, logins)
    loop = asyncio.get_running_loop()

    def told() -> None:
        loop.call_soon_threadsafe(wake)

    for kind, runtime in runtimes.items():
        what = f"watch-{kind}"
        group.create_task(again.for_ever(partial(runtime.watch, told), what, log), name=what)

    async def write(entries: list[Entry]) -> None:
        await write_journal(r, keys, election.required(), entries)

    keeper = LoginKeeper(
        *(r, keys, logins, election, ScriptKeeper(r, keys, layout)),
        name=settings.fleet,
        generation=lambda: backend.in_force,
        runs=lambda: all_instances(runtimes),
    )
    pools = PoolKeeper(r, keys, layout, settings, group, wake)
    members = Members(r, keys, settings.fleet, SigningKey(layout, settings.fleet).control)
    hands = Hands(r, layout, settings, members, pools, election.assure, write)
    executor = Executor(r, keys, layout, runtimes, election.assure, hands.run)
    operations = Operations(executor, group, write=write, wake=wake, before=keeper.assure)
    # In a container our own emp is the image's, which no upgrade of this host's changes.
    installed = Installed().look if settings.containers is None else None
    watch = RedisWatch(r, keys, layout, settings, write)
    for part, what in ((watch.keep, "watch Redis"), (watch.guard, "guard Redis")):
        group.create_task(again.for_ever(part, what, log), name=what)
    backend = RedisBackend(
        *(r, keys, layout, settings.fleet, election),
        Observer(r, keys, runtimes, fresh=True, parts=Parts(layout).look, installed=installed),
        operations,
        JobUpkeep(r, keys, Artifacts(settings.artifacts), group, write, partial(held_secrets, layout)),
        watch,
        KeyHandover(layout, settings.fleet, executor, group),
        pools,
    )
    group.create_task(again.for_ever(keeper.keep, "keep logins", log), name="keep logins")
    reconciler = Reconciler(
        backend,
        jitter=random.random(),  # noqa: S311  # spreads load, guards nothing
        redis=address(settings.machine_redis_url),
    )
    operations.listener = reconciler
    return reconciler, backend
