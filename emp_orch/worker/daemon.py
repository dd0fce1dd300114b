"""The worker: claim → connector → report, one job at a time, for one GPU slot.

Shutdown: stop claiming; finish the job or, after the drain timeout, hand it back; withdraw the report.
"""

from __future__ import annotations

import asyncio
import logging

from emp_orch.store.artifacts.previews import Previews
from emp_orch.store.artifacts.url import without_login
from emp_orch.store.queue.claim import Claims
from emp_orch.store.queue.offers import OffersStore
from emp_orch.store.redis.client import Client, address, client, redacted, told_owner, within
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.one_line import OneLine
from emp_orch.store.redis.pipelined import Pipelined
from emp_orch.store.reports.reports import read_worker
from emp_orch.worker.away import AWAY
from emp_orch.worker.config import WorkerConfig
from emp_orch.worker.files.inputs import Inputs
from emp_orch.worker.files.store import store_of
from emp_orch.worker.loops import Worker
from emp_orch.worker.state import Reporter, WorkerState

log = logging.getLogger("emp.worker")


async def _held_before(r: Client, keys: Keys, config: WorkerConfig) -> str | None:
    """The job that this worker's last report names: one that its former life may still hold."""
    try:
        async with within():
            report = await read_worker(r, keys, config.worker_id)
    except AWAY as e:
        log.warning("cannot learn what this worker did before: %s", e or type(e).__name__)
        return None  # its lease will be over
    return report.current_job_id if report else None


async def run_worker(config: WorkerConfig, redis_url: str, prefix: str, stopping: asyncio.Event) -> None:
    """Work until `stopping` is set and the job in hand is dealt with; leaves no report behind."""
    keys = Keys(prefix)
    # One connection for all, and one for the bell that claims wait for.
    state = WorkerState(config, redis=address(redis_url))
    pool = client(redis_url, owner=told_owner(), most=1, name=f"emp:worker:{config.worker_id}")
    line = Pipelined(pool)  # a call that is given up costs no connection
    r = OneLine(pool, line)
    reporter = Reporter(r, keys, config, state, line.call)
    claims = Claims(r, keys, config.worker_id, lease_s=config.lease_s, line=line, replicas=config.replicas)
    store = store_of(config.artifacts, r, keys, line.call)
    inputs = Inputs(store.inputs, config.url_inputs)
    worker = Worker(config, claims, store.artifacts, state, stopping, OffersStore(r, keys), Previews(r, keys), inputs)
    log.info(
        *("worker %s starts, Redis at %s, outputs to %s", config.worker_id),
        *(redacted(redis_url), without_login(config.artifacts)),
    )
    worker.load_connectors()
    state.set_store_error(store.fault)
    try:
        held = await _held_before(r, keys, config)
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(reporter.run(), name="reporter")]
            loops += [tasks.create_task(worker.store.run(), name="check the artifact store")]
            loops += [tasks.create_task(worker.say_draining(), name="draining")]
            loops += [tasks.create_task(worker.probe(b), name=f"probe {b.service}") for b in worker.bindings]
            if held is not None:
                await tasks.create_task(worker.resume(held), name="resume")
            worker.may_warm_up()
            await tasks.create_task(worker.work(), name="work")
            for loop in loops:
                loop.cancel()
    finally:
        await worker.close()
        await store.aclose()
        await reporter.withdraw()
        await claims.aclose()
        await line.aclose()
        await pool.aclose()
    log.info("worker %s stopped", config.worker_id)
