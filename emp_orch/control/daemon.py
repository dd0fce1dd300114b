"""The reconciler's process: builds its adapters, runs until SIGTERM, gives the lease back."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress

from emp_orch.control import identity
from emp_orch.control.execute import Executor
from emp_orch.control.observe import Observer
from emp_orch.control.reconciler import Reconciler
from emp_orch.layout import Layout
from emp_orch.runtimes import runtimes_of
from emp_orch.settings import Settings
from emp_orch.store import connect
from emp_orch.store.artifacts import Artifacts
from emp_orch.store.connect import TRANSIENT
from emp_orch.store.keys import Keys

log = logging.getLogger("reconcile")


async def run_reconciler(layout: Layout, settings: Settings) -> None:
    """Reconcile the fleet of `layout` until SIGTERM or SIGINT."""
    keys = Keys(settings.prefix)
    r = connect.client(settings.redis_url)
    runtimes = runtimes_of(layout, settings)
    who = identity.own()
    reconciler = Reconciler(
        r,
        keys,
        layout,
        settings.fleet,
        who,
        Observer(r, keys, runtimes, fresh=True),
        Executor(r, keys, layout, runtimes),
        Artifacts(settings.artifacts),
    )
    log.info("reconciler of fleet %s: %s", settings.fleet, who)
    work = asyncio.create_task(reconciler.run())
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, work.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await work
    finally:
        with suppress(*TRANSIENT):
            await reconciler.resign()
        await r.aclose()
    log.info("reconciler stopped")
