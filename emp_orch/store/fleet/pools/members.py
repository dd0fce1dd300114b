"""`fleet:{name}:members`: who is a member of which pool. Sealed: who may write into Redis must not be able to make a
member, since a member is given secrets. The API writes it at a join, the leader when one is to come, to go, or gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import cast

import msgspec
from msgspec import structs

from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import MachineId, Member, PoolName
from emp_orch.seals import Forged, OtherKey, Seal, for_member
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.generations import MARK_CHARS, Generation
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.damaged import DAMAGED, decoder
from emp_orch.store.redis.keys import Keys
from emp_orch.store.redis.lua import script

_PUT = script("fleet/put_member")
_REMOVE = script("fleet/remove_member")
_decode = decoder(Member)

CHANGED = "pool_changed"

# Members of all pools that are read; of entries that nobody of the fleet wrote no more are looked at.
MAX_ENTRIES = 100_000
AT_ONCE = 1_000
# Of one entry: ten times what a member takes.
MAX_TEXT = 4_096
MAX_ID_READ = 100


class Full(Exception):
    """The pool has as many members as it may have."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The members of all pools. `mark` changes when one of them does; `ill`: ids of documents that nobody of this fleet
    wrote, or that do not fit: they are no members.
    """

    mark: str
    members: tuple[Member, ...] = ()
    ill: tuple[str, ...] = ()


class Members:
    """Of one fleet. `seal` gives the fleet's key as it is now, None: of who only shows them. Raises what redis-py
    raises when Redis is away.
    """

    def __init__(self, r: Client, keys: Keys, fleet: str, seal: Callable[[], Seal | None]) -> None:
        self._r = r
        self._keys = keys
        self._fleet = fleet
        self._seal = seal
        self._events = Events(r, keys)

    async def mark(self) -> str:
        return str(await self._r.getrange(self._keys.members_mark(self._fleet), 0, MARK_CHARS - 1) or "")

    async def read(self, known: Seen | None = None) -> Seen:
        """All of them; `known` again where none changed since."""
        mark = await self.mark()  # first: what changes meanwhile is read again
        if known is not None and known.mark == mark:
            return known
        before = {m.id: m for m in known.members} if known is not None else {}
        found: dict[MachineId, Member] = {}
        ill: set[str] = set()
        async for member_id, text in self._texts(mark):
            try:
                found[MachineId(member_id)] = self._opened(member_id, text)
            except OtherKey:  # a rotation is under way: it is sealed anew in a moment
                if (former := before.get(MachineId(member_id))) is None:
                    ill.add(member_id[:MAX_ID_READ])
                else:
                    found[former.id] = former
            except (Forged, *DAMAGED):
                ill.add(member_id[:MAX_ID_READ])
        return Seen(mark=mark, members=tuple(found.values()), ill=tuple(sorted(ill)))

    async def _texts(self, mark: str) -> AsyncIterator[tuple[str, str]]:
        """Of at most MAX_ENTRIES, whoever wrote them; a part at a time, so that others are served meanwhile. None where
        there never was a member: that is most fleets, and costs nothing."""
        cursor, count = 0, 0
        while mark:
            cursor, part = cast(
                tuple[int, dict[str, str]],
                await self._r.hscan(self._keys.members(self._fleet), cursor=cursor, count=AT_ONCE),
            )
            for pair in part.items():
                yield pair
            count += len(part)
            if not cursor or count >= MAX_ENTRIES:
                return

    async def get(self, member_id: str) -> Member | None:
        text = await self._r.hget(self._keys.members(self._fleet), member_id)
        try:
            return None if text is None else self._opened(member_id, text)
        except (Forged, *DAMAGED):
            return None

    async def add(self, member: Member, *, most: int, ring: bool = True) -> bool:
        """Make it a member, of `most` that its pool may have. False where its id is taken. Raises Full. Not to `ring`
        is for who tells of it by another event.
        """
        said = await self._put(member, most=most, before="", ring=ring)
        if said == 0:
            raise Full
        return said == 1

    async def change(self, member: Member, *, ring: bool = True, **changed: object) -> Member | None:
        """`member` with `changed`; None where it is not as it was read any more. `ring`: as of `add`."""
        after = structs.replace(member, **changed)
        return after if await self._put(after, most=0, before=self._text(member), ring=ring) == 1 else None

    async def remove(self, member: Member) -> bool:
        """Forget it; whether it stood there as it was read."""
        forget = self._r.register_script(_REMOVE)
        args = [member.id, member.pool, self._text(member)]
        gone = int(await forget(keys=self._places(), args=args)) == 1
        if gone:
            await self._events.append(CHANGED, fleet=self._fleet, pool=member.pool, machine_id=member.id, state="gone")
        return gone

    async def seal_anew(self, members: Iterable[Member]) -> int:
        """Write `members` by the key that is in force now, each that still stands there, whatever it was sealed by; how
        many that are. For who drew the fleet's key anew.
        """
        count = 0
        for member in members:
            if await self._r.hexists(self._keys.members(self._fleet), member.id):
                count += await self._put(member, most=0, before="*") == 1
        return count

    async def counts(self) -> dict[PoolName, int]:
        """How many each pool has."""
        found = cast(dict[str, str], await self._r.hgetall(self._keys.members_counts(self._fleet)))
        return {PoolName(name): int(n) for name, n in found.items() if n.isascii() and n.isdecimal() and len(n) < 10}

    async def _put(self, member: Member, *, most: int, before: str, ring: bool = True) -> int:
        put = self._r.register_script(_PUT)
        args: list[str | int] = [member.id, self._text(member), member.pool, most, before]
        said = int(await put(keys=self._places(), args=args))
        if said == 1 and ring:
            about = {"pool": member.pool, "machine_id": member.id, "state": member.state}
            await self._events.append(CHANGED, fleet=self._fleet, **about)
        return said

    def _places(self) -> list[str]:
        keys, fleet = self._keys, self._fleet
        return [keys.members(fleet), keys.members_counts(fleet), keys.members_mark(fleet)]

    def _text(self, member: Member) -> str:
        seal = self._seal()
        if seal is None:
            raise ValueError("only who has the fleet's key writes members")
        return seal.sealed(for_member(self._fleet), msgspec.json.encode(member)).decode()

    def _opened(self, member_id: str, text: str | bytes) -> Member:
        """Raises Forged, or DAMAGED."""
        seal = self._seal()
        where = f"member {member_id[:MAX_ID_READ]}"
        if len(text) > MAX_TEXT:
            raise Forged(f"{where} is longer than emp writes any")
        found = _decode(text if seal is None else seal.opened(for_member(self._fleet), text, where))
        if found.id != member_id or not found.id.startswith(f"{found.pool}-"):
            raise Forged(f"{where} is the document of another")
        return found


def populated(generation: Generation, seen: Seen) -> Generation:
    """`generation` with the members of its pools among its machines; the same where nobody is, or was, a member."""
    if not seen.members:
        return generation
    return structs.replace(generation, fleet=with_members(generation.fleet, seen.members))
