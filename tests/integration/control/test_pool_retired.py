"""A pool that emp.yaml names no more keeps its members until they hold nothing, and then has none."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from emp_orch.control.host.generation import as_desired
from emp_orch.fleet.pools.size import sizes, who_goes
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet.generations import Generation, publish
from emp_orch.store.fleet.pools.members import Members, populated
from emp_orch.store.fleet.pools.retired import RetiredPools
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import SIMULATION, fleet, machine
from support.fleet.pools import RENDERS, member, pool, pools_look

KEYS = Keys("")


async def test_the_members_of_a_pool_that_is_no_more_are_let_go(tmp_path: Path, r: Client) -> None:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    seal = SigningKey(layout, "f").control()
    had = structs.replace(fleet([SIMULATION]), pools={RENDERS: pool(least=1, most=4)})
    has = fleet([], machine())  # nor the service of that pool
    members = Members(r, KEYS, "f", lambda: seal)
    for one in (member(1), member(2)):
        assert await members.add(one, most=4)
    for number, said in ((1, had), (2, has), (3, has)):
        assert await publish(r, KEYS, Generation(number=number, at_ms=1, fleet=said, digest=""), seal)

    retired, seen = RetiredPools(r, KEYS), await members.read()
    now = Generation(number=3, at_ms=1, fleet=has, digest="")
    whole = await retired.added(now, seen, seal)
    desired = as_desired(populated(whole, seen))
    assert {*desired.members} == {"renders-1", "renders-2"} == {*desired.machines} - {"m"}
    observed = pools_look(desired, {"renders": 9}, busy=["renders-2"])
    found = sizes(desired, observed, {})
    assert (found[RENDERS].wanted, who_goes(found[RENDERS])) == (0, ("renders-1",))

    for one in seen.members:
        assert await members.remove(one)
    assert await retired.added(now, await members.read(), seal) is now


async def test_boxes_that_somebody_else_started_are_left_to_prune(tmp_path: Path, r: Client) -> None:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    seal = SigningKey(layout, "f").control()
    had = structs.replace(fleet([SIMULATION]), pools={RENDERS: pool(provider="join")})
    assert await publish(r, KEYS, Generation(number=1, at_ms=1, fleet=had, digest=""), seal)
    members = Members(r, KEYS, "f", lambda: seal)
    assert await members.add(member(1), most=4)
    bare = Generation(number=2, at_ms=1, fleet=fleet([], machine()), digest="")
    assert await RetiredPools(r, KEYS).added(bare, await members.read(), seal) is bare


async def test_a_fleet_without_pools_is_as_it_was(tmp_path: Path, r: Client) -> None:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    seal = SigningKey(layout, "f").control()
    members = Members(r, KEYS, "f", lambda: seal)
    assert await members.add(member(1), most=4)  # of a pool that no generation names
    bare = Generation(number=2, at_ms=1, fleet=fleet([], machine()), digest="")
    found = await RetiredPools(r, KEYS).added(bare, await members.read(), seal)
    assert found == bare
    whole = populated(found, await members.read()).fleet
    assert (whole.pools, whole.machines) == ({}, bare.fleet.machines)
