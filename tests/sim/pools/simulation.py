"""The whole: engines and their boxes, the machines in them, Redis, the API's door, two reconcilers, people."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from emp_orch.api.context import Context
from emp_orch.api.duplicate_boxes import Boxes
from emp_orch.api.known_members import KnownMembers
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, Pool, PoolName, ProgramName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.plan.operations import Verb
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.providers.base import Launch
from emp_orch.seals import Seal
from emp_orch.settings import Listen, Settings
from emp_orch.store.fleet.commands import CommandVerb
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.pools.members import Members
from sim.pools import fleets
from sim.pools.boxes import Box
from sim.pools.engine import Engine, Thing
from sim.pools.leader import Process
from sim.pools.redis import KEYS, MembersOf, PoolRedis, SlowLine
from sim.pools.watch import PoolWatch
from sim.pools.world import PoolWorld
from sim.redis import FLEET, SimRedis
from support.fleet.world import Command

_VERBS = {
    CommandVerb.APPLY_CONFIG: Verb.SEND_CONFIG,
    CommandVerb.START_PROGRAM: Verb.START_PROGRAM,
    CommandVerb.RESTART_PROGRAM: Verb.RESTART_PROGRAM,
    CommandVerb.STOP_PROGRAM: Verb.STOP_PROGRAM,
}


@cache
def folder() -> tuple[Layout, Seal, tempfile.TemporaryDirectory[str]]:
    """The fleet's folder with its keys: one for all histories of a process."""
    held = tempfile.TemporaryDirectory()
    layout = Layout(Path(held.name))
    layout.control.mkdir(parents=True)
    JoinTokens(layout).pool_token(FLEET, "", expires_s=None)  # so that the keys are there before any history
    return layout, SigningKey(layout, FLEET).control(), held


class PoolSimulation:
    """`chance` draws what nobody asked for: how long something takes, an id."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.began_ms = fleets.START_MS
        self.world = PoolWorld(now_ms=fleets.START_MS, observing_since_ms=fleets.START_MS)
        self.redis = SimRedis(self.world)
        self.redis.publish(fleets.generation(1, fleets.any_fleet()))
        self.members_of = MembersOf()
        self.layout, seal, _ = folder()
        self.seal = lambda: seal
        self.tokens = JoinTokens(self.layout)
        self.settings = _settings()
        self.watch = PoolWatch(self)
        self.world.returned = self.watch.returned
        # What a pool may have had before emp.yaml said less.
        self.widest: dict[PoolName, int] = {}
        self.engines = {name: self._engine(name) for name in (fleets.RENDERS, fleets.SPARE)}
        self.guests: list[Box] = []
        self.born = 0
        self._seen: tuple[int, dict[MachineId, Member]] = (-1, {})
        self._heard: dict[MachineId, int] = {}
        self._failed: BaseException | None = None
        line = SlowLine(self.world, self.redis, chance)
        r = PoolRedis(line, self.members_of, self.world.waiting_in, self.wake)
        self._members = Members(r.as_client(), KEYS, FLEET, self.seal)
        self.known = KnownMembers(self._members)
        self.boxes_at_door = Boxes()
        known: Any = {"members": self._members, "settings": self.settings, "events": Events(r.as_client(), KEYS)}
        api: Any = SimpleNamespace(redis=r.as_client(), keys=KEYS, **known)
        self.api = cast(Context, api)
        self.processes = [Process(name, self) for name in ("a", "b")]

    def _engine(self, pool: PoolName) -> Engine:
        def begin(launch: Launch) -> Box:
            member_id = launch.member_id
            box: Box = self.box(pool, launch.token, "", lambda words: engine.ended(member_id, box, words))
            return box

        engine = Engine(pool, self.chance, begin, self.watch.created, self.watch.removing)
        return engine

    def box(self, pool: PoolName, token: str, name: str, ended: Any, box: str = "") -> Box:
        self.born += 1
        return Box(self, pool, token, box or f"{self.born:016x}", name, ended)

    # -- what there is

    @property
    def pools(self) -> dict[PoolName, Pool]:
        return dict(self.redis.specs[self.redis.number].fleet.pools)

    def members(self) -> dict[MachineId, Member]:
        """Who is one, by what stands in Redis."""
        if self._seen[0] != self.members_of.mark:
            found = {i: self._members._opened(i, text) for i, text in self.members_of.texts.items()}
            self._seen = (self.members_of.mark, {MachineId(i): m for i, m in found.items()})
        return self._seen[1]

    @property
    def boxes(self) -> list[Box]:
        """All that run."""
        of_engines = [t.life for e in self.engines.values() for t in e.things.values() if isinstance(t.life, Box)]
        return [b for b in (*of_engines, *self.guests) if not b.over]

    def things(self) -> list[tuple[Engine, Thing]]:
        return [(e, t) for e in self.engines.values() for t in e.things.values() if isinstance(t.life, Box)]

    def wake(self) -> None:
        for process in self.processes:
            process.wake()

    def ended(self, task: asyncio.Task[None]) -> None:
        """Whatever breaks in one of its tasks breaks the history."""
        if not task.cancelled() and task.exception() is not None and self._failed is None:
            self._failed = task.exception()

    # -- time

    async def begin(self) -> None:
        for process in self.processes:
            process.start()
        await self.seconds(3)

    async def seconds(self, count: int) -> None:
        for _ in range(count):
            await self.second()

    async def second(self) -> None:
        await asyncio.sleep(1)
        self._deliver()
        outcomes = [*((key, "") for key in self.world.advance()), *self.world.refused]
        self.world.refused.clear()
        for engine in self.engines.values():
            engine.second()
        for key, error in outcomes:
            for process in self.processes:
                await process.heard(key, error)
        if self._failed is not None:
            raise self._failed if not isinstance(self._failed, BaseExceptionGroup) else _first(self._failed)
        self.watch.second()

    def _deliver(self) -> None:
        """What each agent that can be reached finds in its stream."""
        for machine_id, host in self.world.hosts.items():
            stream = self.redis.streams.get(machine_id, [])
            if host.hung or host.cut or self.world.redis_away or not stream:
                continue
            begins = max(self._heard.get(machine_id, 0), host.started_ms)
            for entry_id, command in stream:
                if entry_id > begins:
                    program = ProgramName(command.program) if command.program else None
                    host.orders.append(Command(key=command.seq, verb=_VERBS[command.verb], program=program))
            self._heard[machine_id] = max(begins, stream[-1][0])

    # -- people

    def guest(self, name: str = "") -> None:
        """Somebody starts a box with the line of the pool."""
        token = self.tokens.pool_token(FLEET, fleets.GUESTS, expires_s=None)
        self.watch.say(f"a guest comes {name}")
        self.guests.append(self.box(fleets.GUESTS, token, name, lambda words: None))

    def order(self, pool: PoolName, size: int | None) -> None:
        self.watch.say(f"scale {pool} {size}")
        word = Override(kind=OverrideKind.SCALE, pool=pool, size=size or 0, reason="because")
        self.redis.overrides.pop(word.key, None)
        if size is not None:
            self.redis.overrides[word.key] = word

    def apply(self, of: Fleet) -> None:
        self.watch.say(f"apply {[(p.name, p.min_size, p.max_size) for p in of.pools.values()]}")
        for name in of.pools:
            self.widest[name] = sum(m.pool == name for m in self.members().values())
        self.world.version += 1
        self.redis.publish(fleets.generation(self.redis.number + 1, of))

    def change(self, **changes: Any) -> Fleet:
        """The fleet in force, but for `changes` (see fleets.any_fleet)."""
        fleet = self.redis.specs[self.redis.number].fleet
        now: dict[str, Any] = {
            n: (p.min_size, p.max_size) for n, p in fleet.pools.items() if n in (fleets.RENDERS, fleets.SPARE)
        }
        now["command"] = next(s.command for s in fleet.services.values())[0]  # type: ignore[index]
        return fleets.any_fleet(**{**now, **changes})

    # -- the end

    def heal(self) -> None:
        """All faults stop. What engines know stays as it is."""
        self.watch.say("heal")
        self.world.redis_away = False
        self.world.version += 1
        for engine in self.engines.values():
            engine.faults = type(engine.faults)()
        for box in self.boxes:
            box.set_cut(cut=False)
        for process in self.processes:
            process.line.cut = process.line.deaf = False
            process.line.late_s = 0.01
            if process.dead:
                process.start()
        for pool in (fleets.RENDERS, fleets.SPARE):
            self.order(pool, None)

    async def close(self) -> None:
        for process in self.processes:
            await process.kill()


def _settings() -> Settings:
    return Settings(
        fleet=FLEET,
        redis_url="redis://127.0.0.1:6380/0",
        machine_redis_url="redis://127.0.0.1:6380/0",
        embedded=True,
        redis_port=6380,
        prefix="",
        artifacts="",
        api=Listen(host="127.0.0.1", port=3331),
        monitor=Listen(host="127.0.0.1", port=3333),
        api_machine_url="http://127.0.0.1:3331",
    )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
