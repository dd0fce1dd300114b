"""Operations under way in one reconciler's process, step by step: control/reconciler/{operations,execute}, simulated.

Before each step on a machine the lease's deadline is asked, and before each write in Redis the epoch, as the real ones
do. What is under way when its process is killed stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.errors import EmpError
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.plan.operations import Operation, Verb
from emp_orch.store.fleet.commands import CommandVerb, StampedCommand
from emp_orch.store.fleet.leader import NotLeader
from sim.line import Line
from sim.redis import FLEET
from support.fleet.world import World, digest_of

if TYPE_CHECKING:
    from sim.backend import SimBackend

_COMMANDS = {
    Verb.SEND_CONFIG: CommandVerb.APPLY_CONFIG,
    Verb.START_PROGRAM: CommandVerb.START_PROGRAM,
    Verb.RESTART_PROGRAM: CommandVerb.RESTART_PROGRAM,
    Verb.STOP_PROGRAM: CommandVerb.STOP_PROGRAM,
}


class Listener(Protocol):
    """Who is told of outcomes: the process that the operations run in."""

    def handed_over(self, key: str) -> None: ...

    def given_up(self, key: str) -> None: ...

    def ended(self, key: str, error: str) -> None: ...


@dataclass
class UnderWay:
    operation: Operation
    desired: Desired
    epoch: int
    backend: SimBackend
    # The step that comes next, and which life of the machine it stops.
    step: int = 0
    life: int | None = None


class Operations:
    """`acts` is called before each step on a machine: (operation, epoch)."""

    def __init__(self, line: Line, listener: Listener, acts: Callable[[Operation, int], None]) -> None:
        self._counts = itertools.count(1)
        self._line = line
        self._listener = listener
        self._acts = acts
        self.under_way: list[UnderWay] = []

    @property
    def world(self) -> World:
        return self._line.world

    def begin(self, operation: Operation, desired: Desired, epoch: int, backend: SimBackend) -> None:
        self.under_way.append(UnderWay(operation, desired, epoch, backend))

    def go_on(self) -> None:
        """One step of each."""
        for one in list(self.under_way):
            error, ours = "", True
            try:
                if not self._step(one):
                    continue
            except NotLeader:
                ours = False
            except EmpError as e:
                error = e.message
            except RedisConnectionError as e:
                error = str(e)
            self.under_way.remove(one)
            if not ours:
                self._listener.given_up(one.operation.key)
            elif not error and one.operation.verb in _COMMANDS:
                self._listener.handed_over(one.operation.key)
            else:
                self._listener.ended(one.operation.key, error)

    def _step(self, one: UnderWay) -> bool:
        """Whether that was the last step."""
        operation, redis = one.operation, self._line.redis
        machine_id = operation.machine_id
        machine = one.desired.machines.get(machine_id)
        match operation.verb, one.step:
            case ((Verb.SEND_CONFIG | Verb.START_MACHINE | Verb.RESTART_MACHINE), 0):
                if machine is None:
                    raise EmpError(f"{machine_id} is not in this generation")
                self._line.check()
                redis.write_config(machine, one.desired, one.epoch)
                one.step = 1
                return operation.verb is Verb.SEND_CONFIG and self._send(one)
            case ((Verb.START_PROGRAM | Verb.RESTART_PROGRAM | Verb.STOP_PROGRAM), _):
                return self._send(one)
            case Verb.RESTART_MACHINE, 1:
                return self._ask_to_stop(one)
            case Verb.RESTART_MACHINE, 2:
                return self._until_stopped(one)
            case ((Verb.START_MACHINE | Verb.RESTART_MACHINE), _):
                assert machine is not None
                self._may(one)
                if machine_id in self.world.unstartable:
                    raise EmpError(f"{machine_id} cannot be started")
                self.world.start(machine, one.desired.generation, digest_of(one.desired))
                return True
            case Verb.REMOVE_MACHINE, 0:
                return self._ask_to_stop(one)
            case Verb.REMOVE_MACHINE, 2:
                return self._until_stopped(one)
            case Verb.REMOVE_MACHINE, _:
                self._line.check()
                redis.fence(one.epoch)
                self.world.forget(machine_id)
                return True
            case _:
                assert operation.verb is Verb.FORGET_WORKER and operation.worker_id is not None
                self._line.check()
                self.world.forget_worker(operation.worker_id, operation.seen_ms)
                return True

    def _may(self, one: UnderWay) -> None:
        """Whether a step on the machine may be taken still."""
        if self.world.now_ms >= one.backend.deadline_ms or one.backend.led != one.epoch:
            raise NotLeader(FLEET, "")
        if one.operation.machine_id in self.world.blind:
            raise EmpError("its runtime does not answer")
        self._acts(one.operation, one.epoch)

    def _ask_to_stop(self, one: UnderWay) -> bool:
        """From here on the machine ends by itself, whatever becomes of us."""
        self._may(one)
        host = self.world.hosts.get(one.operation.machine_id)
        if host is not None and one.operation.machine_id not in self.world.foreign:
            one.life = host.started_ms
            host.stopping_since_ms = host.stopping_since_ms or self.world.now_ms
        one.step = 2
        return False

    def _until_stopped(self, one: UnderWay) -> bool:
        host = self.world.hosts.get(one.operation.machine_id)
        if host is None or host.started_ms != one.life:
            one.step = 3
        return False

    def _send(self, one: UnderWay) -> bool:
        self._line.check()
        operation = one.operation
        verb, count = _COMMANDS[operation.verb], next(self._counts)
        command = StampedCommand(epoch=one.epoch, count=count, seq=operation.key, verb=verb, program=operation.program)
        self._line.redis.send(operation.machine_id, command, one.epoch)
        return True
