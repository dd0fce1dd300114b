"""One reconciler's process: the real rounds, hands, keeper of engines and operations, over the simulated Redis.

It is killed between any two awaits, and starts anew; its line to Redis may be cut.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.control.pools.hands import Hands
from emp_orch.control.pools.keeper import PoolKeeper
from emp_orch.control.reconciler.observe import Observer
from emp_orch.control.reconciler.operations import Operations
from emp_orch.control.reconciler.rounds import Reconciler
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.incremental import Attention
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, Round
from emp_orch.runtimes.base import Runtime
from emp_orch.store.fleet.commands import CommandVerb, StampedCommand
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.fleet.pools.members import Members, Seen, populated
from sim.backend import SimBackend
from sim.pools.engine import load_from
from sim.pools.redis import KEYS, PoolRedis, SlowLine
from sim.redis import FLEET

if TYPE_CHECKING:
    from sim.pools.simulation import PoolSimulation

# As control/reconciler/loop.py has them.
TICK_S, INTERVAL_S, SETTLE_S, LOST_S = 8.0, 2.0, 0.1, 1.0
_COMMANDS = {
    Verb.SEND_CONFIG: CommandVerb.APPLY_CONFIG,
    Verb.START_PROGRAM: CommandVerb.START_PROGRAM,
    Verb.RESTART_PROGRAM: CommandVerb.RESTART_PROGRAM,
    Verb.STOP_PROGRAM: CommandVerb.STOP_PROGRAM,
}


class NobodySeen:
    """The runtime of boxes: emp cannot see whether they live."""

    async def instances(self) -> dict[str, Any]:
        return {}


class Hand:
    """control/leader/execute, as far as members need it: their verbs by the real Hands, orders into the streams."""

    def __init__(self, sim: PoolSimulation, line: SlowLine, hands: Hands, members: Members, backend: Assures) -> None:
        self._sim = sim
        self._line = line
        self._hands = hands
        self._members = members
        self._backend = backend
        self._counts = itertools.count(1)

    async def run(self, operation: Operation, desired: Desired, mandate: Mandate) -> bool:
        machine_id = operation.machine_id
        match operation.verb:
            case Verb.CREATE_MEMBER | Verb.DRAIN_MEMBER | Verb.REMOVE_MEMBER:
                if await self._hands.run(operation, desired, mandate):
                    await self._line.call(lambda: self._drop(machine_id))
            case Verb.FORGET_MEMBER:
                await self._forget(operation, desired, mandate)
            case Verb.FORGET_WORKER:
                worker_id, seen_ms = operation.worker_id, operation.seen_ms
                assert worker_id is not None
                self._sim.world.version += 1
                await self._line.call(lambda: self._sim.world.forget_worker(worker_id, seen_ms))
                self._sim.world.version += 1
            case verb if verb in _COMMANDS:
                await self._line.call(lambda: self._send(operation, desired, mandate.epoch))
                return False
            case _:
                raise EmpError(f"{machine_id} is a box of its own")
        return True

    def _send(self, operation: Operation, desired: Desired, epoch: int) -> None:
        machine_id, redis = operation.machine_id, self._sim.redis
        if operation.verb is Verb.SEND_CONFIG:
            redis.write_config(desired.machines[machine_id], desired, epoch)
        verb, count = _COMMANDS[operation.verb], next(self._counts)
        command = StampedCommand(epoch=epoch, count=count, seq=operation.key, verb=verb, program=operation.program)
        redis.send(machine_id, command, epoch)

    async def _forget(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        """As control/leader/forget_member: its entry first."""
        self._backend.assure(mandate)
        member = desired.members.get(operation.machine_id)
        if member is not None and not await self._members.remove(member):
            return
        heard_ms = self._sim.world.documents.get(operation.machine_id, (None, 0))[1]
        if heard_ms <= (operation.seen_ms or heard_ms):
            await self._line.call(lambda: self._drop(operation.machine_id))

    def _drop(self, machine_id: MachineId) -> None:
        """All that was said of it."""
        self._sim.world.version += 1
        self._sim.world.forget(machine_id)


class Assures(SimBackend):
    """What one reconciler has of the world, pools with it."""

    members: Members
    keeper: PoolKeeper
    real: Operations

    def __init__(self, who: str, line: SlowLine, r: PoolRedis, told: Callable[[Memory], None]) -> None:
        super().__init__(who, line, cast(Any, None), told)
        runtimes = {RuntimeKind.EXTERNAL: cast(Runtime, NobodySeen())}
        self._observer = Observer(r.as_client(), KEYS, runtimes, fresh=True, clock=line)
        self._seen: Seen | None = None
        self._populated: Generation | None = None

    def assure(self, mandate: Mandate) -> None:
        if self.world.now_ms >= self.deadline_ms or self.led != mandate.epoch:
            raise NotLeader(FLEET, "")

    async def generation(self) -> Generation | None:
        before, seen = self._current, self._seen
        found = await super().generation()
        self._seen = await self.members.read(seen)
        if found is not None and (self._seen is not seen or found is not before or self._populated is None):
            self._populated = populated(found, self._seen)
        return self._populated

    async def look(self, desired: Desired, attention: Attention) -> Observed:
        assert self._populated is not None
        seen = await self.keeper.look(self._populated.fleet, await super().look(desired, attention))
        if self.whole is not None:
            self.whole = structs.replace(self.whole, pools=seen.pools, waiting=seen.waiting, instances={}, answered=())
        return seen

    def begin(self, operation: Operation, desired: Desired, mandate: Mandate) -> None:
        self.real.begin(operation, desired, mandate)

    def lost(self) -> None:
        super().lost()
        self._seen = self._populated = None


class Watched(Reconciler):
    """Shows each round to `judge` before it acts."""

    def __init__(self, backend: SimBackend, judge: Callable[[Inputs, Round], None]) -> None:
        super().__init__(backend, jitter=0.5)
        self._judge = judge

    async def _act(self, inputs: Inputs, done: Round, mandate: Mandate) -> None:
        self._judge(inputs, done)
        await super()._act(inputs, done, mandate)


class Process:
    def __init__(self, name: str, sim: PoolSimulation) -> None:
        self.name = name
        self._sim = sim
        self.lives = 0
        self.line = SlowLine(sim.world, sim.redis, sim.chance)
        self.reconciler: Watched | None = None
        self.backend: Assures | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    @property
    def dead(self) -> bool:
        return self._task is None

    def start(self) -> None:
        self.lives += 1
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self.name)
        self._task.add_done_callback(self._sim.ended)

    async def kill(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        if self.backend is not None:
            self._sim.redis.release(self.backend.who)

    def wake(self) -> None:
        self._woken.set()

    async def heard(self, key: str, error: str) -> None:
        """A machine says what came of a command."""
        if self.reconciler is not None and not self.dead and not self.line.cut:
            await self.reconciler.reported(key, error=error)
            self.wake()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            await self._rounds(self._made(group))

    def _made(self, group: asyncio.TaskGroup) -> tuple[Watched, Assures]:
        sim = self._sim
        r = PoolRedis(self.line, sim.members_of, sim.world.waiting_in, sim.wake)
        client = r.as_client()
        backend = Assures(f"{self.name}.{self.lives}", self.line, r, sim.watch.told)
        backend.members = Members(client, KEYS, FLEET, sim.seal)
        keeper = PoolKeeper(client, KEYS, sim.layout, sim.settings, group, self.wake, load_from(sim.engines))

        async def write(entries: list[Entry]) -> None:
            await self.line.call(lambda: sim.redis.journal.extend(entries))

        hands = Hands(client, sim.layout, sim.settings, backend.members, keeper, backend.assure, write)
        hand = Hand(sim, self.line, hands, backend.members, backend)
        operations = Operations(cast(Any, hand), group, write, self.wake)
        backend.keeper, backend.real = keeper, operations
        reconciler = Watched(backend, lambda inputs, done: sim.watch.judge(self, inputs, done))
        operations.listener = reconciler
        self.reconciler, self.backend = reconciler, backend
        return reconciler, backend

    async def _rounds(self, made: tuple[Watched, Assures]) -> None:
        reconciler, backend = made
        while True:
            try:
                async with asyncio.timeout(TICK_S):
                    await reconciler.tick()
            except (RedisConnectionError, TimeoutError):
                backend.lost()
                reconciler.lost()
                self._sim.watch.lost_sight()
                await asyncio.sleep(LOST_S)
                continue
            except NotLeader:
                reconciler.stand_by()
            await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(INTERVAL_S):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(SETTLE_S)
        self._woken.clear()
