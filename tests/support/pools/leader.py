"""A leader that looks after pools: the real look, decision and hands, round by round, in one Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import structs

from emp_orch.control.leader.execute import Executor
from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.control.pools.engine import Load
from emp_orch.control.pools.hands import Hands
from emp_orch.control.pools.keeper import PoolKeeper
from emp_orch.control.pools.told import pools_status
from emp_orch.control.reconciler.desired import DesiredState
from emp_orch.control.reconciler.observe import Observer
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.incremental import Attention
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool, PoolName
from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.policy.memory import Memory, ended
from emp_orch.fleet.round import Inputs, Round, decide
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.settings import Listen, Settings
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import Mandate
from emp_orch.store.fleet.pools.members import Members, populated
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import machine_writer, worker_writer
from support.fleet.fleets import SIMULATION, fleet, report, worker
from support.pools.sleepers import Sleepers

WITHIN_S = 20.0


class Leader:
    """Of fleet `f`, whose pools one engine serves; or those that `load` gives."""

    def __init__(
        self,
        r: Client,
        folder: Path,
        engine: Sleepers,
        group: asyncio.TaskGroup,
        *pools: Pool,
        load: Load | None = None,
    ) -> None:
        self.r, self.keys, self.engine = r, Keys(""), engine
        layout = Layout(folder)
        layout.control.mkdir(parents=True, exist_ok=True)
        self.fleet = structs.replace(fleet([SIMULATION]), pools={p.name: p for p in pools})
        listen = Listen(host="127.0.0.1", port=1)
        settings = Settings(
            fleet="f",
            redis_url="redis://127.0.0.1:1/0",
            machine_redis_url="redis://127.0.0.1:1/0",
            embedded=False,
            redis_port=1,
            prefix="",
            artifacts="",
            api=listen,
            monitor=listen,
            api_machine_url="http://api:3331",
        )
        self.members = Members(r, self.keys, "f", SigningKey(layout, "f").control)
        self.journal: list[Entry] = []
        self.failed: list[str] = []
        self._stirred = asyncio.Event()
        self.keeper = PoolKeeper(r, self.keys, layout, settings, group, self._stirred.set, load or engine.made)
        self._election = LeaderElection(r, self.keys, "f", "us")
        hands = Hands(r, layout, settings, self.members, self.keeper, self._election.assure, self._write)
        self._executor = Executor(r, self.keys, layout, {}, self._election.assure, hands.run)
        self._observer = Observer(r, self.keys, {}, fresh=False)
        self._desired = DesiredState()
        self._memory = Memory()
        self.desired: Desired | None = None
        self.layout = layout
        self.status: dict[PoolName, PoolStatus] = {}
        self.former: dict[PoolName, tuple[Pool, ...]] = {}

    async def _write(self, entries: list[Entry]) -> None:
        self.journal += entries

    async def round(self, *overrides: Override) -> Round:
        """Look, decide, and carry out what is about members."""
        mandate = await self._election.take()
        assert mandate is not None
        bare = Generation(number=1, at_ms=1, fleet=self.fleet, digest="")
        generation = populated(bare, await self.members.read())
        desired = self.desired = self._desired.of(generation, overrides)
        observed = await self._observer.follow(desired, Attention())
        observed = await self.keeper.look(generation.fleet, observed, self.former)
        inputs = Inputs(desired=desired, observed=observed, memory=self._memory, overrides=overrides)
        done = decide(inputs)
        self.status = pools_status(inputs, done)
        self._memory = done.memory
        self.journal += done.entries
        for operation in done.decision.run:
            if operation.pool:
                error = ""
                try:
                    await self._executor.run(operation, desired, mandate)
                except EmpError as e:
                    error = e.message
                    self.failed.append(error)
                self._memory = ended(self._memory, operation.key, ok=not error, error=error)
        return done

    async def until(self, what: Callable[[Round], bool], *overrides: Override) -> Round:
        """Rounds until `what` holds: one at each change of the engine, and now and then."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                done = await self.round(*overrides)
                if what(done):
                    return done
                try:
                    async with asyncio.timeout(0.5):
                        await self._stirred.wait()
                except TimeoutError:
                    continue
                self._stirred.clear()

    def apply(self, *pools: Pool) -> None:
        self.fleet = structs.replace(self.fleet, pools={p.name: p for p in pools})

    async def all(self) -> dict[MachineId, Member]:
        return {m.id: m for m in (await self.members.read()).members}

    async def mandate(self) -> Mandate:
        found = await self._election.take()
        assert found is not None
        return found

    async def join(self, member_id: MachineId, *, busy: bool = False) -> None:
        """The box joins, and reports as its agent and workers would."""
        await self.enter(member_id)
        await self.report(member_id, busy=busy)

    async def enter(self, member_id: MachineId) -> None:
        """The API lets it in."""
        member = (await self.all())[member_id]
        if member.state is MemberState.EXPECTED:
            now_ms = await time_ms(self.r)
            assert await self.members.change(member, state=MemberState.IN, joined_ms=now_ms) is not None

    async def report(self, member_id: MachineId, *, busy: bool = False) -> None:
        """As it is told to be: without workers where it is drained."""
        await self.round()
        assert self.desired is not None
        machine = self.desired.machines[member_id]
        await machine_writer(self.r, self.keys, member_id).write(report(machine).report)
        for slot in range(machine.num_gpus):
            writer = worker_writer(self.r, self.keys, worker_id(member_id, slot))
            if machine.drained and not busy:
                await writer.withdraw()
                continue
            status = WorkerStatus.BUSY if busy else WorkerStatus.IDLE
            said = worker(machine, slot, status=status, current_job_id="j" if busy else None)
            await writer.write(said.report)


@asynccontextmanager
async def leading(r: Client, folder: Path, *pools: Pool, load: Load | None = None) -> AsyncIterator[Leader]:
    """A leader and its engine; at the end no box is left."""
    engine = Sleepers()
    try:
        async with asyncio.TaskGroup() as group:
            before = asyncio.all_tasks()
            yield Leader(r, folder, engine, group, *pools, load=load)
            for task in asyncio.all_tasks() - before:
                if (task.get_name() or "").startswith("pool "):
                    task.cancel()
    finally:
        await engine.end()
