"""A box's life: it boots, joins by the real join of the API, reports, works, and ends, in order or without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError

from emp_orch.api.joining.membership import Entry, enter
from emp_orch.fleet.desired.machines import desired_machine
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, PoolName
from emp_orch.fleet.model.observed import MachineReport
from emp_orch.runtimes.keys.join_tokens import OfMember, OfPool
from emp_orch.store.acl.joining import Asking
from emp_orch.web.errors import Refused
from sim.redis import FLEET
from support.fleet.world import Host, fresh_host

if TYPE_CHECKING:
    from sim.pools.simulation import PoolSimulation


@dataclass
class MemberHost(Host):
    """`box`: the identity of the folder it runs in."""

    box: str = ""

    def report(self) -> MachineReport:
        return structs.replace(super().report(), box=self.box)


class Box:
    """`token` is the pool's that it was started with; `ended` is called when it is no more, with words."""

    def __init__(
        self, sim: PoolSimulation, pool: PoolName, token: str, box: str, name: str, ended: Callable[[str], None]
    ) -> None:
        self._sim = sim
        self.pool = pool
        self._token = token
        self._own = ""
        self._asking = Asking(box=box.ljust(16, "0"), host="simulated", name=name)
        self._ended = ended
        self.cut = False
        self.over = False
        self.host: MemberHost | None = None
        self.member: Member | None = None
        self._told = False
        self._task = asyncio.get_running_loop().create_task(self._live(), name=f"box {box}")
        self._task.add_done_callback(sim.ended)

    # -- what its engine or its host does to it

    def terminate(self) -> None:
        self._told = True
        if self.host is not None:
            self.host.stopping_since_ms = self.host.stopping_since_ms or self._sim.world.now_ms

    def kill(self, words: str = "it was killed") -> None:
        """Without a word."""
        if self.over:
            return
        self._excuse()
        self._task.cancel()
        self._take_away()
        self._end(words)

    def set_cut(self, *, cut: bool) -> None:
        self.cut = cut
        if cut:
            self._excuse()
        if self.host is not None:
            self.host.cut = cut

    def _excuse(self) -> None:
        if self.member is not None:
            self._sim.watch.excuse(self.member.id)

    def _take_away(self) -> None:
        """Nothing of it runs any more."""
        host, self.host = self.host, None
        world = self._sim.world
        if host is not None and world.hosts.get(host.machine.id) is host:
            world.version += 1
            world.stop(host.machine.id, in_order=False)

    def _end(self, words: str) -> None:
        self.over = True
        self._ended(words)

    # -- its life

    async def _live(self) -> None:
        await asyncio.sleep(2 + 4 * self._sim.chance.random())
        while not (self._told and self.host is None):
            if self.cut:
                await asyncio.sleep(1)
                continue
            try:
                self.member = await self._join()
            except Refused as e:
                if e.status == 403:
                    if not self._own:
                        break
                    self._own = ""  # what it was given is void; the way it came may be open still
                await asyncio.sleep(5)
                continue
            except RedisConnectionError:
                await asyncio.sleep(3)
                continue
            self._run(self.member)
            if not await self._serve(self.member):
                return
        self._end("it ended")

    async def _join(self) -> Member:
        sim, now_s = self._sim, self._sim.world.now_ms / 1000
        opened: OfPool | OfMember | None
        if self._own:
            opened = sim.tokens.member_of(self._own, FLEET, now_s=now_s)
        else:
            opened = sim.tokens.pool_of(self._token, FLEET, now_s=now_s)
        generation = sim.redis.specs[sim.redis.number]
        pool = generation.fleet.pools.get(self.pool)
        if opened is None or pool is None:
            raise Refused(403, "no pool")
        void = sim.watch.is_void(opened)
        member = await enter(
            sim.api, sim.boxes_at_door, Entry(generation=generation, pool=pool, opened=opened, asking=self._asking)
        )
        sim.watch.entered(opened, member, void=void)
        self._own = sim.tokens.member_token(FLEET, self.pool, member.id, born_ms=member.born_ms, life=member.life)
        return member

    def _run(self, member: Member) -> None:
        """It gets its configuration, and starts. A box that is cut off and was this member is none any more."""
        sim = self._sim
        generation = sim.redis.specs[sim.redis.number]
        fleet = with_members(generation.fleet, (member,))
        machine = desired_machine(fleet, next(m for m in fleet.machines if m.id == member.id))
        bare = fresh_host(machine, generation.number, sim.world.now_ms)
        host = MemberHost(**{f.name: getattr(bare, f.name) for f in fields(Host)}, box=self._asking.box)
        sim.world.version += 1
        if member.id in sim.world.hosts:
            sim.watch.excuse(member.id)
            sim.world.stop(member.id, in_order=False)
        sim.world.hosts[member.id] = host
        host.cut = self.cut
        self.host = host
        if self._told:
            self.terminate()

    async def _serve(self, member: Member) -> bool:
        """Until it ends, or its member is none any more: then True, and it may ask again."""
        sim = self._sim
        shown = OfMember(pool=self.pool, member_id=member.id, born_ms=member.born_ms, life=member.life)
        while True:
            await asyncio.sleep(1)
            if sim.world.hosts.get(member.id) is not self.host:
                self.host = None
                if self._told:
                    await self._leave(member)
                    self._end("it ended")
                    return False
                return True  # another box is the member now
            if self.cut or sim.world.redis_away:
                continue
            try:
                if not await sim.known.is_one(shown):
                    self._excuse()
                    self._take_away()
                    return True
            except RedisConnectionError:
                continue

    async def _leave(self, member: Member) -> None:
        """Its last word, as api/handlers/join.leave_pool takes it."""
        try:
            now = await self._sim.api.members.get(member.id)
            if now is not None and (now.born_ms, now.life) == (member.born_ms, member.life) and not self.cut:
                await self._sim.api.members.change(now, state=MemberState.LEFT, why="its box was told to end")
        except RedisConnectionError:
            return


def id_of(box: Box) -> MachineId | None:
    return box.member.id if box.member is not None else None
