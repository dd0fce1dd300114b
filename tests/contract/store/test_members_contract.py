"""The members of pools as a Redis keeps them, on every Redis that emp takes."""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, PoolName
from emp_orch.seals import Seal, for_member
from emp_orch.store.fleet.pools.members import MAX_ENTRIES, Full, Members
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys

FLEET = "f"
KEYS = Keys("emp:")
SEAL = Seal(b"k" * 32)
OTHER = Seal(b"o" * 32)
RENDERS = PoolName("renders")


def member(suffix: str, pool: str = "renders") -> Member:
    return Member(id=MachineId(f"{pool}-{suffix}"), pool=PoolName(pool), state=MemberState.EXPECTED, born_ms=1)


def members(r: Client, seal: Seal | None = SEAL) -> Members:
    return Members(r, KEYS, FLEET, lambda: seal)


async def test_one_that_was_added_is_read_by_who_has_the_key(r: Client) -> None:
    assert await members(r).add(member("a"), most=2)
    seen = await members(r).read()
    assert (seen.members, seen.ill) == ((member("a"),), ())
    assert await members(r).get("renders-a") == member("a")
    assert await members(r).get("renders-b") is None
    assert await members(r).counts() == {RENDERS: 1}


async def test_an_id_is_given_once(r: Client) -> None:
    assert await members(r).add(member("a"), most=2)
    assert not await members(r).add(structs.replace(member("a"), born_ms=2), most=2)
    assert (await members(r).read()).members == (member("a"),)


async def test_a_pool_has_no_more_than_it_may(r: Client) -> None:
    store = members(r)
    assert await store.add(member("a"), most=1)
    refused = False
    try:
        await store.add(member("b"), most=1)
    except Full:
        refused = True
    assert refused
    assert await store.add(member("b", pool="others"), most=1)
    assert await store.remove(member("a"))
    assert await store.add(member("b"), most=1)
    assert await store.counts() == {RENDERS: 1, PoolName("others"): 1}


async def test_who_changes_or_forgets_one_must_have_read_it_as_it_is(r: Client) -> None:
    store = members(r)
    await store.add(member("a"), most=2)
    joined = await store.change(member("a"), state=MemberState.IN, joined_ms=5)
    assert joined is not None
    assert joined.joined_ms == 5
    assert await store.change(member("a"), leaving_ms=7) is None
    assert not await store.remove(member("a"))
    assert (await store.read()).members == (joined,)
    assert await store.remove(joined)
    assert not await store.remove(joined)
    assert (await store.read()).members == ()
    assert await store.counts() == {}


async def test_nothing_is_read_again_while_nothing_changed(r: Client) -> None:
    store = members(r)
    await store.add(member("a"), most=2)
    first = await store.read()
    assert await store.read(first) is first
    await store.add(member("b"), most=2)
    second = await store.read(first)
    assert second is not first
    assert {m.id for m in second.members} == {"renders-a", "renders-b"}


async def test_what_nobody_of_the_fleet_wrote_is_no_member(r: Client) -> None:
    store, key = members(r), KEYS.members(FLEET)
    await store.add(member("a"), most=9)
    await members(r, OTHER).add(member("b"), most=9)
    mine = await r.hget(key, "renders-a")
    assert mine is not None
    sealed_as_order = SEAL.sealed("override f", b'{"id":"renders-e"}').decode()
    long = SEAL.sealed(for_member(FLEET), b'{"id":"renders-g","why":"' + b"x" * 5_000 + b'"}').decode()
    bad = {
        "renders-c": "{",
        "renders-d": mine,
        "renders-e": sealed_as_order,
        "renders-f": "[" * 2_000,
        "renders-g": long,
    }
    for member_id, text in bad.items():
        await r.hset(key, member_id, text)
    seen = await store.read()
    assert seen.members == (member("a"),)
    assert set(seen.ill) == {"renders-b", *bad}
    assert await store.get("renders-d") is None


async def test_a_hash_that_somebody_filled_is_read_to_an_end(r: Client) -> None:
    store, key = members(r), KEYS.members(FLEET)
    await store.add(member("a"), most=9)
    for first in range(0, 2 * MAX_ENTRIES, 20_000):
        await r.hset(key, mapping={f"renders-x{n}": "x" for n in range(first, first + 20_000)})
    seen = await store.read()
    assert len(seen.members) + len(seen.ill) <= MAX_ENTRIES + 2_000


async def test_another_key_of_the_fleet_takes_its_members_along(r: Client) -> None:
    before, after = members(r), members(r, OTHER)
    await before.add(member("a"), most=9)
    known = (await before.read()).members
    await before.remove(member("a"))
    await before.add(member("b"), most=9)
    # One that went meanwhile does not come back.
    assert await after.seal_anew((*known, member("b"))) == 1
    assert (await after.read()).members == (member("b"),)
    assert await after.counts() == {RENDERS: 1}


async def test_who_only_shows_members_needs_no_key(r: Client) -> None:
    await members(r).add(member("a"), most=9)
    assert (await members(r, None).read()).members == (member("a"),)
