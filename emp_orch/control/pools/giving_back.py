"""Gives back all boxes of a fleet's pools, for who takes the fleet down: a box costs as long as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress

from msgspec import Struct

from emp_orch.control.host import generation as generations
from emp_orch.control.pools.engine import ANSWER_S, ENDED_MARGIN_S, box_stop_s, making_of, words_of
from emp_orch.control.pools.former import settings_of
from emp_orch.control.pools.hands import ACCEPTED_S
from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, Pool
from emp_orch.fleet.model.pools import JOIN, BoxState
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.providers.base import Provider, ProviderError
from emp_orch.runtimes.providers.registry import load
from emp_orch.settings import Settings
from emp_orch.store.fleet.generations import Generation
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.redis.client import TRANSIENT, Client, connected, within
from emp_orch.store.redis.keys import Keys

Tell = Callable[[str], None]

# As many boxes are given back at once.
AT_ONCE = 16
GONE_EVERY_S = 1.0


class Left(Struct, frozen=True, kw_only=True):
    """What became of no end: boxes of a pool that run on, as its engine told which, and what it said. Where it told
    none, `members`: those that have not left by the last word of Redis. Without `pool`: of whatever pools there are.
    """

    pool: str = ""
    boxes: tuple[MachineId, ...] = ()
    members: tuple[MachineId, ...] = ()
    words: str = ""

    def __str__(self) -> str:
        which = f"pool {self.pool}" if self.pool else "boxes of its pools, if it has any, run on"
        which = f"boxes of {which} run on: {', '.join(self.boxes)}" if self.boxes else which
        if self.members:
            which += f", whose members by the last word of Redis are {', '.join(self.members)}"
        return f"{which}: {self.words}" if self.words else which


async def give_back(layout: Layout, settings: Settings | None, tell: Tell) -> tuple[list[MachineId], list[Left]]:
    """Ask every engine of the fleet's pools for an end of its boxes, and wait for it: whose boxes ended, and what is
    left. A box ends in good order as long as the API is there. Of a damaged folder what cannot be asked for is left.
    """
    async with AsyncExitStack() as open_:
        r, kept = None, None
        if settings is not None:
            with suppress(EmpError, *TRANSIENT):
                r = await open_.enter_async_context(connected(settings.redis_url, owner=settings.redis_owner))
                async with within():
                    kept = await generations.in_force(r, Keys(settings.prefix), layout, settings.fleet)
        try:
            kept = kept or generations.kept(layout)
        except EmpError as e:
            return [], [Left(words=e.message)]
        if kept is None or not kept.fleet.pools:
            return [], []
        if settings is None:
            words = f"{layout.settings} is damaged: `emp apply` writes it anew"
            return [], [Left(pool=n, words=words) for n, pool in kept.fleet.pools.items() if pool.provider != JOIN]
        known = _Known(layout, settings, r)
        backs = [_Back(layout, settings, kept.fleet, pool, known, tell) for pool in await known.pools(kept)]
        found = await asyncio.gather(*(back.all() for back in backs))
    return sorted(i for back in backs for i in back.ended), [left for left in found if left is not None]


class _Known:
    """What Redis tells of the pools, where it answers."""

    def __init__(self, layout: Layout, settings: Settings, r: Client | None) -> None:
        seal = SigningKey(layout, settings.fleet).control()
        self._seal, self._r, self._keys = seal, r, Keys(settings.prefix)
        self._members = None if r is None else Members(r, self._keys, settings.fleet, lambda: seal)

    async def pools(self, kept: Generation) -> list[Pool]:
        """Those with an engine, those too that are no more or had another one."""
        pools = list(kept.fleet.pools.values())
        with suppress(EmpError, *TRANSIENT):
            if self._r is not None and self._members is not None:
                async with within():
                    seen = await self._members.read()
                    retired = RetiredPools(self._r, self._keys)
                    full = await retired.added(kept, seen, self._seal)
                    former = await retired.former(kept, seen, self._seal)
                    pools = [*full.fleet.pools.values(), *(pool for some in former.values() for pool in some)]
        return list({(pool.name, settings_of(pool)): pool for pool in pools if pool.provider != JOIN}.values())

    async def there(self) -> set[MachineId]:
        """Members that did not say good-bye; nobody where Redis does not say."""
        return {m.id for m in await self.members() if m.state is MemberState.IN}

    async def members(self) -> tuple[Member, ...]:
        """Nobody where Redis does not say."""
        with suppress(EmpError, *TRANSIENT):
            if self._members is not None:
                async with within():
                    return (await self._members.read()).members
        return ()


class _Back:
    """One pool's boxes, at one engine."""

    def __init__(self, layout: Layout, settings: Settings, fleet: Fleet, pool: Pool, known: _Known, tell: Tell) -> None:
        self._stop_s = box_stop_s(fleet, pool)
        self._making = making_of(pool, settings.fleet, layout, settings)
        self._pool = pool
        self._known = known
        self._tell = tell
        self.ended: list[MachineId] = []

    async def all(self) -> Left | None:
        """What is left, None if nothing is. Whatever another's code raises is told."""
        try:
            provider = load(self._pool.provider, self._making)
            if provider is None:
                return None
            try:
                return await self._all(provider)
            finally:
                await provider.aclose()
        except Exception as e:  # noqa: BLE001  # another's code
            mine = (m for m in await self._known.members() if m.pool == self._pool.name)
            members = sorted(m.id for m in mine if m.state is not MemberState.LEFT)
            return Left(pool=self._pool.name, members=tuple(members), words=words_of(e))

    async def _all(self, provider: Provider) -> Left | None:
        states = await self._living(provider)
        if not states:
            await self._forget_ended(provider)
            return None
        self._tell(f"pool {self._pool.name}: {_counted(len(states))} to end")
        said = await self._refused(provider, states)
        running = [i for i, state in states.items() if state is BoxState.RUNNING and i not in said]
        left = await self._until_gone(provider, running) if len(said) < len(states) else states
        self.ended = [i for i in states if i not in left]
        self._tell(f"pool {self._pool.name}: {_counted(len(self.ended))} given back")
        await self._forget_ended(provider)
        if not left:
            return None
        words = "; ".join(dict.fromkeys(said[i] for i in left if i in said)) or "the engine took the word"
        return Left(pool=self._pool.name, boxes=tuple(sorted(left)), words=words)

    async def _until_gone(self, provider: Provider, running: Iterable[MachineId]) -> dict[MachineId, BoxState]:
        """The boxes that the engine still has when their time is over. Those that ran may say good-bye to the API."""
        until_s, leaving = time.monotonic() + self._stop_s + ENDED_MARGIN_S, set(running)
        while True:
            left = await self._living(provider)
            there = await self._known.there()
            if (not left and not leaving & there) or time.monotonic() >= until_s:
                return left
            await asyncio.sleep(GONE_EVERY_S)

    async def _forget_ended(self, provider: Provider) -> None:
        """An engine may list a box that has ended until that is given back: nobody is left who will."""
        ended = [i for i, state in (await self._boxes(provider)).items() if state is BoxState.ENDED]
        if said := await self._refused(provider, ended):
            raise ProviderError(next(iter(said.values())))

    async def _refused(self, provider: Provider, member_ids: Iterable[MachineId]) -> dict[MachineId, str]:
        """Have all of them removed: what the engine said of those that it did not take."""
        gate = asyncio.Semaphore(AT_ONCE)
        said: dict[MachineId, str] = {}

        async def remove(member_id: MachineId) -> None:
            async with gate:
                try:
                    async with asyncio.timeout(ACCEPTED_S):
                        await provider.remove(member_id, stop_s=self._stop_s)
                except Exception as e:  # noqa: BLE001  # another's code
                    said[member_id] = words_of(e)

        await asyncio.gather(*map(remove, member_ids))
        return said

    async def _living(self, provider: Provider) -> dict[MachineId, BoxState]:
        return {i: state for i, state in (await self._boxes(provider)).items() if state is not BoxState.ENDED}

    async def _boxes(self, provider: Provider) -> dict[MachineId, BoxState]:
        async with asyncio.timeout(ANSWER_S):
            return {b.member_id: b.state for b in await provider.boxes()}


def _counted(boxes: int) -> str:
    return f"{boxes} box" if boxes == 1 else f"{boxes} boxes"
