"""The reconciler's process: builds its adapters, runs until SIGTERM, gives the lease back."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from contextlib import suppress
from functools import partial

from emp_orch.control import identity
from emp_orch.control.execute import Executor
from emp_orch.control.job_care import JobCare
from emp_orch.control.loop import Loop
from emp_orch.control.observe import Observer
from emp_orch.control.operations import Operations
from emp_orch.control.reconciler import Reconciler
from emp_orch.control.redis_backend import RedisBackend, write_journal
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.settings import Settings
from emp_orch.store import connect
from emp_orch.store.artifacts import Artifacts
from emp_orch.store.connect import TRANSIENT, Client, within
from emp_orch.store.keys import Keys
from emp_orch.store.leader import Leadership

log = logging.getLogger("reconcile")


# A Redis that hangs must not keep us from stopping.
RESIGN_S = 3.0
LEASE_S = 10.0


async def run_reconciler(layout: Layout, settings: Settings) -> None:
    """Reconcile the fleet of `layout` until SIGTERM or SIGINT."""
    r = connect.client(settings.redis_url)
    keys, who = Keys(settings.prefix), identity.own()
    leadership = Leadership(r, keys, settings.fleet, who, ttl_ms=int(LEASE_S * 1000))
    log.info("reconciler of fleet %s: %s", settings.fleet, who)
    work = asyncio.create_task(_reconcile(r, keys, layout, settings, leadership))
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, work.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await work
    finally:
        with suppress(*TRANSIENT):
            async with within(RESIGN_S):
                await leadership.release()
        await r.aclose()
    log.info("reconciler stopped")


async def _reconcile(r: Client, keys: Keys, layout: Layout, settings: Settings, leadership: Leadership) -> None:
    """Build the parts and run them until cancelled."""
    fleet, runtimes = settings.fleet, runtimes_of(layout, settings)
    async with asyncio.TaskGroup() as group:
        executor = Executor(r, keys, layout, runtimes)
        operations = Operations(executor, group, partial(write_journal, r, keys, fleet), wake=lambda: running.wake())
        backend = RedisBackend(
            *(r, keys, layout, fleet, leadership),
            Observer(r, keys, runtimes, fresh=True),
            operations,
            JobCare(r, keys, Artifacts(settings.artifacts), group),
        )
        reconciler = Reconciler(backend, jitter=random.random())  # noqa: S311  # spreads load, guards nothing
        operations.listener = reconciler
        running = Loop(r, keys, reconciler, backend.lost, backend.interval_s)
        for part in running.parts():
            group.create_task(part)
