"""The journal has the beginning of an operation before its end, though it is over before its round is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

from emp_orch.control.leader.execute import Executor
from emp_orch.control.reconciler.operations import Operations
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId, WorkerId
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.layout import Layout
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import one, wish

FORGET = Operation(
    verb=Verb.FORGET_WORKER, machine_id=MachineId("m"), worker_id=WorkerId("m-worker-9"), cause="", origin=""
)


async def test_an_operation_that_is_over_at_once_ends_after_it_began(tmp_path: Path, r: Client) -> None:
    keys, written, over = Keys(""), list[Entry](), asyncio.Event()
    await r.hset(keys.workers, str(FORGET.worker_id), "{}")

    async def write(entries: list[Entry]) -> None:
        written.extend(entries)

    async with asyncio.TaskGroup() as group:
        executor = Executor(r, keys, Layout(tmp_path), {}, lambda mandate: None)
        operations = Operations(executor, group, write, over.set)
        operations.begin(FORGET, wish(one([])), Mandate(fleet="f", holder="h", epoch=1))
        async with operations.telling:
            await over.wait()
            assert not await r.hexists(keys.workers, str(FORGET.worker_id))
            assert written == []
            await write([("operation_begun", {})])
    assert [type_ for type_, _ in written] == ["operation_begun", "operation_ended"]
