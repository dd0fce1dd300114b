"""The engines: slow, forgetful, at times without a word that is true; and the provider by which emp speaks to one.

All that is so here is known; what the provider says of it may be something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.pools import Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Making, ProviderError

LATE_S = 15.0


class Life(Protocol):
    """A box that runs."""

    def terminate(self) -> None:
        """SIGTERM: it ends by itself, within its time."""

    def kill(self) -> None: ...


@dataclass
class Thing:
    """One object of the engine. `given_back_ms`: when it took the word that it is to go."""

    launch: Launch
    state: BoxState = BoxState.PENDING
    words: str = ""
    life: Life | None = None
    given_back: bool = False


@dataclass
class Faults:
    """`refuses`: it has no place. `after`: it starts the box, and says that it failed. `mute`: it answers nothing.
    `forgets`, `lists`: boxes that it does not show though they are there, that it shows though they are not. `slow_s`:
    how long it takes with a word; `places`: how many boxes can run, the others wait.
    """

    refuses: bool = False
    after: bool = False
    mute: bool = False
    deaf: bool = False
    forgets: set[MachineId] = field(default_factory=set)
    lists: dict[MachineId, Box] = field(default_factory=dict)
    slow_s: float = 0.5
    places: int = 99


class Engine:
    """One pool's. `begin` makes a box run; `created` and `removing` are told of what emp asks."""

    def __init__(
        self,
        pool: PoolName,
        dice: Random,
        begin: Callable[[Launch], Life],
        created: Callable[[Engine], None],
        removing: Callable[[Engine, MachineId], None],
    ) -> None:
        self.pool = pool
        self.things: dict[MachineId, Thing] = {}
        self.faults = Faults()
        self._dice = dice
        self._begin = begin
        self._created = created
        self._removing = removing

    @property
    def there(self) -> list[Thing]:
        """What it has, and what costs."""
        return [t for t in self.things.values() if not t.given_back and t.state is not BoxState.ENDED]

    async def turn(self) -> None:
        await asyncio.sleep(self._dice.random() * self.faults.slow_s)
        if self.faults.mute:
            raise ProviderError("the engine does not answer")

    def second(self) -> None:
        """What it does by itself: it finds places."""
        running = sum(t.life is not None for t in self.things.values())
        for thing in self.things.values():
            waits = thing.state is BoxState.PENDING and thing.life is None and not thing.given_back
            if waits and running < self.faults.places and self._dice.random() < 0.5:
                self.start(thing)
                running += 1
            if waits:
                thing.words = "no node has a free gpu" if thing.life is None else ""

    def start(self, thing: Thing) -> None:
        thing.state, thing.life = BoxState.RUNNING, self._begin(thing.launch)

    def ended(self, member_id: MachineId, life: Life, words: str) -> None:
        """A box ended by itself, or was killed."""
        thing = self.things.get(member_id)
        if thing is None or thing.life is not life:
            return
        if thing.given_back:
            del self.things[member_id]
        else:
            thing.state, thing.words, thing.life = BoxState.ENDED, words, None

    # -- words of emp

    def create(self, launch: Launch) -> None:
        if self.faults.refuses:
            raise ProviderError("no node has a free gpu")
        if launch.member_id not in self.things:
            self.things[launch.member_id] = Thing(launch)
            self._created(self)

    async def late(self) -> None:
        """What it did it does not say, and that only after a while, in which the box may join."""
        if self.faults.after:
            await asyncio.sleep(self._dice.random() * LATE_S)
            raise ProviderError("the engine took too long")

    def remove(self, member_id: MachineId) -> None:
        if self.faults.deaf:
            raise ProviderError("the engine is too busy to remove anything")
        thing = self.things.get(member_id)
        if thing is None or thing.given_back:
            return
        self._removing(self, member_id)
        thing.given_back = True
        if thing.life is None:
            del self.things[member_id]
        else:
            thing.life.terminate()

    def boxes(self) -> tuple[Box, ...]:
        """As it says."""
        shown = {
            i: Box(member_id=i, state=t.state, words=t.words)
            for i, t in self.things.items()
            if i not in self.faults.forgets
        }
        return tuple({**self.faults.lists, **shown}.values())


class SimProvider:
    """One reconciler's way to an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def boxes(self) -> tuple[Box, ...]:
        await self._engine.turn()
        return self._engine.boxes()

    async def create(self, launch: Launch) -> None:
        await self._engine.turn()
        self._engine.create(launch)
        await self._engine.late()
        await self._engine.turn()

    async def remove(self, member_id: MachineId, *, stop_s: float) -> None:
        await self._engine.turn()
        self._engine.remove(member_id)
        await self._engine.turn()

    async def watch(self, changed: Callable[[], None]) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None: ...


def load_from(engines: dict[PoolName, Engine]) -> Callable[[str, Making], SimProvider | None]:
    """What finds the provider of a pool, as runtimes/providers/registry does."""

    def load(name: str, making: Making) -> SimProvider | None:
        return SimProvider(engines[making.pool])

    return load
