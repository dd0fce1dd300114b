"""Watching a drain: whose worker is still there, and at which job, until none is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from emp_orch.control.limits import LOOK_AGAIN_MS
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Fleet, MachineId, ProgramName, WorkerId
from emp_orch.fleet.model.ids import worker_id, worker_program
from emp_orch.fleet.model.observed import ProgramState, WorkerReport
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.pauses import drain_of
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.fleet.status import read_status
from emp_orch.store.redis import client
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import read_some

_GONE = (ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL)


class WorkerLeft(Struct, frozen=True, kw_only=True):
    """A worker that is still there. `job_id` is what it works on, None when nothing."""

    worker_id: str
    status: str
    job_id: str | None = None


class Draining(Struct, frozen=True, kw_only=True):
    """How far a drain is. `waits`: why it has not begun, where something holds it."""

    left: tuple[WorkerLeft, ...]
    waits: str = ""


class Drain:
    """Watches the drain of one machine of one fleet."""

    def __init__(self, r: Client, keys: Keys, fleet: str, machine_id: str) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._machine_id = MachineId(machine_id)
        self._events = Events(r, keys)

    async def wait(self, tell: Callable[[Draining], None]) -> None:
        """Until no worker is left; `tell` hears of each state on the way. The deadline is the caller's.

        Raises EmpError when somebody lifts the drain meanwhile.
        """
        after = await self._events.latest_id()
        while True:
            try:
                seen = await self.look()
                tell(seen)
                if not seen.left:
                    return
                batch = await self._events.since(after, block_ms=LOOK_AGAIN_MS)
                after = batch[-1].id if batch else after
            except client.TRANSIENT:
                await client.drop_idle(self._r)
                await asyncio.sleep(LOOK_AGAIN_MS / 1000)

    async def look(self) -> Draining:
        """Who is left now: a worker that reports, or whose program is not known to have ended. Of a machine that nobody
        hears: who holds a job; a worker that is dead cannot finish, and its lease ends."""
        generation = await read_with_members(self._r, self._keys, self._fleet)
        if drain_of(await read_overrides(self._r, self._keys, self._fleet), self._machine_id) is None:
            raise EmpError(f"the drain of {self._machine_id} was lifted meanwhile")
        slots = _workers(generation.fleet, self._machine_id) if generation else {}
        now_ms = await client.time_ms(self._r)
        reports = await read_some(self._r, self._keys, now_ms, [self._machine_id], list(slots))
        machine = reports.machines.get(self._machine_id)
        stale_ms = int(generation.fleet.reconcile.stale_after_s * 1000) if generation else 0
        left = []
        away = machine is None or abs(now_ms - machine.seen_ms) > stale_ms
        for worker_name, program in slots.items():
            worker = reports.workers.get(worker_name)
            got = machine.report.programs.get(program) if machine else None
            ended = away or got is None or got.state in _GONE
            silent = worker is not None and abs(now_ms - worker.seen_ms) > stale_ms
            if worker is not None and not (ended and silent and not (away and await self._holds(worker.report))):
                said = worker.report
                left.append(WorkerLeft(worker_id=worker_name, status=said.status, job_id=said.current_job_id))
            elif not ended and got is not None:
                left.append(WorkerLeft(worker_id=worker_name, status=got.state.lower()))
        return Draining(left=tuple(left), waits=await self._waits() if left else "")

    async def _holds(self, worker: WorkerReport) -> bool:
        """Whether a worker that nobody hears any more holds its job still: until its lease is over it may come back."""
        if worker.current_job_id is None:
            return False
        async with self._r.pipeline(transaction=False) as pipe:
            pipe.zscore(self._keys.leases, worker.current_job_id)
            pipe.hget(self._keys.job(worker.current_job_id), "worker_id")
            lease, holder = await pipe.execute()
        return lease is not None and holder == worker.worker_id

    async def _waits(self) -> str:
        status = await read_status(self._r, self._keys, self._fleet)
        mine = [i for i in status.drift if i.drift.machine_id == self._machine_id] if status else []
        return next((i.held for i in mine if i.hold is not None and i.hold is not Hold.UNDER_WAY), "")


def _workers(fleet: Fleet, machine_id: MachineId) -> dict[WorkerId, ProgramName]:
    """The workers that the machine has while it is not drained, and the program of each."""
    slots = next((m.num_gpus for m in fleet.machines if m.id == machine_id), 0)
    return {worker_id(machine_id, slot): worker_program(slot) for slot in range(slots)}
