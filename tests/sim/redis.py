"""Redis as the reconciler knows it: lease and epoch, generation, overrides, requests, memory, journal, commands.

The reports are the world's (world.py). Each method is one command or script: it happens at once or not at all. What a
leader writes is fenced by its epoch, as store/ does it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from msgspec import structs

from emp_orch.fleet.desired.values import DesiredMachine
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.overrides import Override
from emp_orch.fleet.policy.memory import Memory
from emp_orch.store.fleet.commands import StampedCommand
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.fleet.requests import Request
from support.fleet.world import World, digest_of

LEASE_MS = 10_000
FLEET = "f"


@dataclass
class SimRedis:
    """`disk` is the generation that the control plane keeps beside Redis; every reconciler can read it."""

    world: World
    holder: str = ""
    lease_until_ms: int = 0
    epoch: int = 0
    number: int = 0
    specs: dict[int, Generation] = field(default_factory=dict)
    disk: Generation | None = None
    overrides: dict[str, Override] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    memory: Memory | None = None
    journal: list[Entry] = field(default_factory=list)
    # Each machine's stream: (id, command), ids rising with the clock.
    streams: dict[MachineId, list[tuple[int, StampedCommand]]] = field(default_factory=dict)
    asked: int = 0
    # Until when the lease may be held by one who does not know that it lost it: Redis forgot it, or its clock ran.
    broken_until_ms: int = 0

    # -- the lease

    def acquire(self, who: str, above: int) -> int | None:
        """The epoch, if the lease is held by `who` now: a new one is higher than any that `who` knows of."""
        now_ms = self.world.redis_ms
        if self.holder and now_ms < self.lease_until_ms:
            if self.holder != who:
                return None
        else:
            self.holder = who
            self.epoch = max(self.epoch + 1, above + 1, now_ms)
        self.lease_until_ms = now_ms + LEASE_MS
        return self.epoch

    def release(self, who: str) -> None:
        if self.holder == who:
            self.holder = ""

    def fence(self, epoch: int) -> None:
        if epoch < self.epoch:
            raise NotLeader(FLEET, self.holder)

    # -- what people write

    def publish(self, generation: Generation) -> None:
        assert generation.number == self.number + 1
        self.number = generation.number
        self.specs[generation.number] = self.disk = generation

    def publish_again(self, number: int, epoch: int) -> None:
        """What a leader does by itself when a generation makes no progress."""
        self.fence(epoch)
        if (old := self.specs.get(number)) is not None:
            self.publish(structs.replace(old, number=self.number + 1, prune=False))

    def ask(self, request: Request) -> str:
        self.asked += 1
        self.requests[f"{self.asked}"] = request
        return f"{self.asked}"

    # -- what a leader writes

    def remember(self, memory: Memory, entries: list[Entry], epoch: int) -> None:
        self.fence(epoch)
        self.memory = memory
        self.journal += entries

    def write_config(self, machine: DesiredMachine, desired: Desired, epoch: int) -> None:
        self.fence(epoch)
        self.world.configs[machine.id] = (machine, desired.generation, digest_of(desired))

    def send(self, machine_id: MachineId, command: StampedCommand, epoch: int) -> None:
        self.fence(epoch)
        stream = self.streams.setdefault(machine_id, [])
        stream.append((max(self.world.redis_ms, stream[-1][0] + 1 if stream else 0), command))

    # -- faults

    def empty(self) -> None:
        """FLUSHALL."""
        self.world.empty()
        self.broken_until_ms = max(self.broken_until_ms, self.world.now_ms + LEASE_MS)
        self.holder, self.epoch, self.number, self.memory = "", 0, 0, None
        for held in (self.specs, self.overrides, self.requests, self.streams):
            held.clear()

    def jump(self, ms: int) -> None:
        """Its clock is set by `ms`; a lease ends by that clock."""
        self.world.redis_ahead_ms += ms
        if ms > 0:
            self.broken_until_ms = max(self.broken_until_ms, self.world.now_ms + LEASE_MS)
