"""The wait of `emp drain` for a machine that vanished: a dead worker cannot finish, and its lease ends."""

from __future__ import annotations

from emp_orch.control.apply.draining import Drain
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.store.fleet.orders import Orders
from emp_orch.store.queue.claim import Claimed, Claims
from emp_orch.store.queue.submit import Queue
from emp_orch.store.queue.upkeep.reaper import Reaper
from emp_orch.store.redis.client import time_ms
from support.http.stack import FLEET, Producer, fleet_of
from support.redis.server import job

CAPABILITIES = {"services": ["simulation"]}
WORKER = "m-worker-0"


async def claimed_by(producer: Producer, worker_id: str) -> str:
    claims = Claims(producer.redis, producer.keys, worker_id, lease_s=60.0)
    claim = await claims.claim_or_wait(CAPABILITIES)
    assert isinstance(claim, Claimed)
    return claim.job.id


async def test_it_ends_with_the_lease_of_a_worker_that_is_dead(producer: Producer) -> None:
    r, keys = producer.redis, producer.keys
    fleet = fleet_of("m", "n", num_gpus=1)
    await producer.apply(fleet)
    await producer.machine(fleet, "m")
    await Queue(r, keys).submit(job())
    job_id = await claimed_by(producer, WORKER)
    await producer.worker("m", 0, status=WorkerStatus.BUSY, job=job_id)
    await Orders(r, keys, FLEET, producer.seal).drain("m", reason="gone", by="kim")
    drain = Drain(r, keys, FLEET, "m")
    assert [w.job_id for w in (await drain.look()).left] == [job_id]
    long_ago = await time_ms(r) - 60_000
    await r.zadd(keys.machines_seen, {"m": long_ago})
    await r.zadd(keys.workers_seen, {WORKER: long_ago})
    assert [w.job_id for w in (await drain.look()).left] == [job_id], "it may come back until its lease is over"
    await r.zadd(keys.leases, {job_id: 1})
    await Reaper(r, keys).reap()
    assert (await drain.look()).left == ()
    assert await claimed_by(producer, "n-worker-0") == job_id
    assert (await drain.look()).left == (), "another has it now"
