"""Which machine holds a run of a job: what lets a machine at that run's files, and at no other's."""

from __future__ import annotations

from emp_orch.fleet.model.ids import machine_of
from emp_orch.jobs.document.states import HELD
from emp_orch.store.queue.claim import run_name
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.scripts import Call

_FIELDS = ("status", "worker_id", "token", "runs")


class HeldRuns:
    """Raises what redis-py raises when Redis is away."""

    def __init__(self, call: Call, keys: Keys) -> None:
        self._call = call
        self._keys = keys

    async def held_by(self, job_id: str, run: str) -> str | None:
        """The machine whose worker has this very run of the job in hand; None when nobody has."""
        found = await self._call("HMGET", self._keys.job(job_id), *_FIELDS)
        status, worker, token, runs = (value or "" for value in found)
        held = status in HELD and token and (runs or "0").isdecimal()
        return machine_of(worker) if held and run == run_name(int(runs or 0) + 1, token) else None
