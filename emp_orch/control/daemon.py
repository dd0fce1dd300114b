"""The reconciler's process: builds its adapters, runs until SIGTERM, gives the lease back."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from contextlib import suppress

from emp_orch.control.execute import Executor
from emp_orch.control.observe import Observer
from emp_orch.control.reconciler import Reconciler
from emp_orch.fleet.model import RuntimeKind
from emp_orch.layout import Layout
from emp_orch.procident import identify
from emp_orch.runtimes.process import ProcessRuntime
from emp_orch.settings import Settings
from emp_orch.store import connect
from emp_orch.store.connect import TRANSIENT
from emp_orch.store.keys import Keys

log = logging.getLogger("reconcile")


async def run_reconciler(layout: Layout, settings: Settings) -> None:
    """Reconcile the fleet of `layout` until SIGTERM or SIGINT."""
    keys = Keys(settings.prefix)
    r = connect.client(settings.redis_url)
    process = ProcessRuntime(layout, settings)
    me = identify(os.getpid())
    who = f"{platform.node()}:{os.getpid()}:{me.start_ticks if me else 0}"
    reconciler = Reconciler(
        r,
        keys,
        layout,
        settings.fleet,
        who,
        Observer(r, keys, (process,), fresh=True),
        Executor(r, keys, layout, {RuntimeKind.PROCESS: process}),
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
