"""What every provider promises, as rules that ask a real one: `emp provider test` and the tests hold them.

A rule asks for boxes of its own, so several may be asked one after the other of one engine, and gives them back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from msgspec import Struct

from emp_orch.errors import EmpError
from emp_orch.fleet.model.fleet import MachineId, PoolName
from emp_orch.fleet.model.pools import MAX_WORDS, Box, BoxState
from emp_orch.runtimes.providers.base import Launch, Provider

# Between two looks at what an engine makes of a word that it took.
ASK_AGAIN_S = 0.2


class Broken(EmpError):
    """A rule that was not kept: what was done, and what was seen then."""


class Subject(Struct, frozen=True, kw_only=True):
    """What is asked. `provider` makes one for a fleet and a pool; `launch` is what a box of them is to be started with,
    which need not join anywhere. `within_s`: how long the engine may take until it shows what it was asked for.
    """

    provider: Callable[[str, PoolName], Provider]
    launch: Callable[[str, PoolName, MachineId], Launch]
    fleet: str = "contract"
    pool: PoolName = PoolName("tried")
    within_s: float = 30.0


Rule = Callable[[Subject], Awaitable[None]]


async def create_shows_one_box(subject: Subject) -> None:
    """After create, the list has the member's box, once, and it has not ended."""
    async with _pool(subject) as pool:
        member = pool.member()
        await pool.create(member)
        await pool.until(f"one box of {member}, not ended", lambda seen: _alive(seen, member) == 1)


async def create_twice_is_one_box(subject: Subject) -> None:
    """A second create of the same member changes nothing."""
    async with _pool(subject) as pool:
        member = pool.member()
        await pool.create(member)
        before = await pool.until(f"a box of {member}", lambda seen: _alive(seen, member) == 1)
        await pool.create(member)
        after = await pool.until(f"one box of {member}", lambda seen: _count(seen, member) == 1)
        if _one(before, member).ref != _one(after, member).ref:
            _broken(f"the second create of {member} put another box in the place of the first", after)


async def create_together_is_one_box_each(subject: Subject) -> None:
    """Two members asked for at the same time get a box each; one member asked for twice at the same time gets one."""
    async with _pool(subject) as pool:
        one, other = pool.member(), pool.member()
        await asyncio.gather(pool.create(one), pool.create(other))
        await pool.until("a box each", lambda seen: _alive(seen, one) == 1 and _alive(seen, other) == 1)
        twice = pool.member()
        done = await asyncio.gather(pool.create(twice), pool.create(twice), return_exceptions=True)
        if all(isinstance(d, BaseException) for d in done):
            _broken(f"of two creates of {twice} at the same time, none was carried out: {done[0]}", ())
        await pool.until(f"one box of {twice}", lambda seen: _count(seen, twice) == 1)


async def remove_takes_the_box(subject: Subject) -> None:
    """After remove, the member's box is gone or has ended, and another's is as it was."""
    async with _pool(subject) as pool:
        goes, stays = pool.member(), pool.member()
        await pool.create(goes)
        await pool.create(stays)
        await pool.until("both boxes", lambda seen: _alive(seen, goes) == 1 and _alive(seen, stays) == 1)
        await pool.remove(goes)
        await pool.until(f"no box of {goes} that has not ended", lambda seen: _alive(seen, goes) == 0)
        if _alive(seen := await pool.boxes(), stays) != 1:
            _broken(f"the removal of {goes} took {stays} too", seen)


async def remove_twice_is_no_fault(subject: Subject) -> None:
    """A second remove of the same member changes nothing, and is no error."""
    async with _pool(subject) as pool:
        member = pool.member()
        await pool.create(member)
        await pool.until(f"a box of {member}", lambda seen: _alive(seen, member) == 1)
        await pool.remove(member)
        await pool.remove(member)
        await pool.until(f"no box of {member} that has not ended", lambda seen: _alive(seen, member) == 0)
        await pool.remove(member)


async def remove_of_unknown_is_no_fault(subject: Subject) -> None:
    """To remove a member that never had a box is no error."""
    async with _pool(subject) as pool:
        await pool.remove(pool.member())


async def create_after_remove_is_a_box_again(subject: Subject) -> None:
    """A member that was removed may be asked for again."""
    async with _pool(subject) as pool:
        member = pool.member()
        await pool.create(member)
        await pool.until(f"a box of {member}", lambda seen: _alive(seen, member) == 1)
        await pool.remove(member)
        await pool.until(f"no box of {member} that has not ended", lambda seen: _alive(seen, member) == 0)
        await pool.create(member)
        await pool.until(f"a box of {member} again", lambda seen: _alive(seen, member) == 1)


async def other_pools_are_not_seen(subject: Subject) -> None:
    """A pool sees and touches neither the boxes of a pool whose name begins like its own, nor another fleet's."""
    beside = PoolName(f"{subject.pool}-b")
    async with (
        _pool(subject) as own,
        _pool(subject, pool=beside) as near,
        _pool(subject, fleet=f"{subject.fleet}-b") as far,
    ):
        theirs = near.member()
        await near.create(theirs)
        same = own.member()
        await far.create(same)
        await near.until(f"a box of {theirs}", lambda seen: _alive(seen, theirs) == 1)
        await far.until(f"a box of {same}", lambda seen: _alive(seen, same) == 1)
        if strangers := [b for b in await own.boxes() if b.member_id in (theirs, same)]:
            _broken(f"the list of pool {own.name} of fleet {own.fleet} has boxes of others", strangers)
        await own.remove(same)
        if _alive(seen := await far.boxes(), same) != 1:
            _broken(f"a removal in fleet {own.fleet} took the box of fleet {far.fleet}", seen)
        if _alive(seen := await near.boxes(), theirs) != 1:
            _broken(f"a removal in pool {own.name} took the box of pool {near.name}", seen)


async def words_are_fit_to_be_shown(subject: Subject) -> None:
    """What the list says is one line each, bounded, and without the token."""
    async with _pool(subject) as pool:
        member = pool.member()
        await pool.create(member)
        seen = await pool.until(f"a box of {member}", lambda seen: _alive(seen, member) == 1)
        token = subject.launch(pool.fleet, pool.name, member).token
        for name in ("ref", "words", "node"):
            text = str(getattr(_one(seen, member), name))
            if len(text) > MAX_WORDS:
                _broken(f"{name} has {len(text)} characters, of at most {MAX_WORDS}", ())
            if not text.isprintable():
                _broken(f"{name} is not one line of printable text: {text!r}", ())
            if token and token in text:
                _broken(f"{name} shows the token", ())


async def a_call_given_up_harms_none(subject: Subject) -> None:
    """A create that its caller gives up ends at once, and the next one ends with one box."""
    async with _pool(subject) as pool:
        member = pool.member()
        given_up = asyncio.create_task(pool.create(member), name="a create to be given up")
        await asyncio.wait({given_up}, timeout=ASK_AGAIN_S)
        given_up.cancel()
        await asyncio.wait({given_up}, timeout=subject.within_s)
        if not given_up.done():
            _broken(f"a create that was given up goes on for more than {subject.within_s:g} s", ())
        await pool.create(member)
        await pool.until(f"one box of {member}", lambda seen: _alive(seen, member) == 1)


async def a_watch_ends_when_told(subject: Subject) -> None:
    """A watch goes on until it is cancelled, and ends then; after that the provider still answers."""
    async with _pool(subject) as pool:
        watch = asyncio.create_task(pool.provider.watch(lambda: None), name="a watch")
        await asyncio.wait({watch}, timeout=ASK_AGAIN_S)
        if watch.done():
            watch.result()  # its own error says more
            _broken("the watch ended by itself", ())
        watch.cancel()
        await asyncio.wait({watch}, timeout=subject.within_s)
        if not watch.done():
            _broken(f"a watch that was cancelled goes on for more than {subject.within_s:g} s", ())
        await pool.boxes()


RULES: tuple[Rule, ...] = (
    create_shows_one_box,
    create_twice_is_one_box,
    create_together_is_one_box_each,
    remove_takes_the_box,
    remove_twice_is_no_fault,
    remove_of_unknown_is_no_fault,
    create_after_remove_is_a_box_again,
    other_pools_are_not_seen,
    words_are_fit_to_be_shown,
    a_call_given_up_harms_none,
    a_watch_ends_when_told,
)


class _Pool:
    """One provider, and the members that a rule asked it for."""

    def __init__(self, subject: Subject, fleet: str, name: PoolName) -> None:
        self.fleet = fleet
        self.name = name
        self.provider = subject.provider(fleet, name)
        self._subject = subject
        self._asked: list[MachineId] = []

    def member(self) -> MachineId:
        """An id that nobody has."""
        return MachineId(f"{self.name}-{secrets.token_hex(4)}")

    async def create(self, member: MachineId) -> None:
        self._asked.append(member)
        await self.provider.create(self._subject.launch(self.fleet, self.name, member))

    async def remove(self, member: MachineId) -> None:
        await self.provider.remove(member, stop_s=self._stop_s(member))

    async def boxes(self) -> tuple[Box, ...]:
        return await self.provider.boxes()

    async def until(self, what: str, so: Callable[[tuple[Box, ...]], bool]) -> tuple[Box, ...]:
        """The first list that is `so`. Raises Broken when none is in time."""
        deadline = time.monotonic() + self._subject.within_s
        while not so(seen := await self.boxes()):
            if time.monotonic() > deadline:
                _broken(f"not within {self._subject.within_s:g} s: {what}", seen)
            await asyncio.sleep(ASK_AGAIN_S)
        return seen

    async def give_back(self) -> None:
        """Every box that was asked for. The first refusal is raised once all were tried."""
        tried = await asyncio.gather(*(self.remove(m) for m in dict.fromkeys(self._asked)), return_exceptions=True)
        await self.provider.aclose()
        for refused in tried:
            if isinstance(refused, BaseException):
                raise refused

    def _stop_s(self, member: MachineId) -> float:
        return self._subject.launch(self.fleet, self.name, member).stop_s


@asynccontextmanager
async def _pool(subject: Subject, *, fleet: str = "", pool: str = "") -> AsyncIterator[_Pool]:
    made = _Pool(subject, fleet or subject.fleet, PoolName(pool or subject.pool))
    try:
        yield made
    except BaseException as e:
        try:
            await made.give_back()
        except EmpError as also:
            e.add_note(f"and what was asked for could not be given back: {also.message}")
        raise
    await made.give_back()


def _count(seen: tuple[Box, ...], member: MachineId) -> int:
    return sum(box.member_id == member for box in seen)


def _alive(seen: tuple[Box, ...], member: MachineId) -> int:
    return sum(box.member_id == member and box.state is not BoxState.ENDED for box in seen)


def _one(seen: tuple[Box, ...], member: MachineId) -> Box:
    return next(box for box in seen if box.member_id == member and box.state is not BoxState.ENDED)


def _broken(what: str, seen: tuple[Box, ...] | list[Box]) -> NoReturn:
    listed = ", ".join(f"{box.member_id} {box.state}{f' ({box.words})' if box.words else ''}" for box in seen[:10])
    raise Broken(f"{what}; listed: {listed}" if listed else what)
