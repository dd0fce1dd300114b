"""A pool that a person holds at a size: what so many members are too few for is wanted of other pools at once."""

from __future__ import annotations

from collections.abc import Mapping

from emp_orch.fleet.model.fleet import Member, PoolName
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.pools import JOIN
from emp_orch.fleet.pools.memory import AWAITED_MS, up_to
from emp_orch.fleet.pools.shares import Shares, shared
from emp_orch.fleet.pools.size import PoolSize, sizes
from support.fleet.fleets import NOW_MS
from support.fleet.pools import ENGINE, member, pool, pools_look, pools_wish

CHEAP, MID, DEAR = PoolName("cheap"), PoolName("mid"), PoolName("dear")
POOLS = {p.name: p for p in (pool("dear", most=8, cost=3.0), pool("cheap", most=10, cost=1.0), pool("mid", cost=2.0))}
NONE = dict.fromkeys(POOLS, 0)


def given(
    groups: Mapping[str, int], held: Mapping[PoolName, int], starved: Mapping[PoolName, int] = {}, **running: int
) -> Shares:
    busy = {**NONE, **{PoolName(name): jobs for name, jobs in running.items()}}
    return shared(pools_look(pools_wish([]), groups).waiting, POOLS, busy, starved, held)


def test_what_a_held_pool_is_not_there_for_is_the_next_ones_too() -> None:
    found = given({"cheap+dear": 5}, {CHEAP: 0})
    assert (found.jobs[DEAR], found.handed) == (5, {CHEAP: {DEAR: 5}})
    found = given({"cheap+dear": 5}, {CHEAP: 2})
    assert (found.jobs[DEAR], found.handed) == (3, {CHEAP: {DEAR: 3}})
    found = given({"cheap+dear": 5}, {CHEAP: 2}, cheap=1)
    assert (found.jobs[DEAR], found.handed) == (4, {CHEAP: {DEAR: 4}})
    assert given({"cheap+dear": 5}, {CHEAP: 9}).handed == {}
    assert given({"cheap": 5}, {CHEAP: 0}).handed == {}


def test_one_that_is_held_takes_no_more_than_it_is_there_for() -> None:
    found = given({"cheap+dear+mid": 5}, {MID: 2}, {CHEAP: 0})
    assert found.handed == {CHEAP: {MID: 2, DEAR: 3}}
    found = given({"cheap+dear+mid": 5}, {CHEAP: 0, MID: 0})
    assert (found.jobs[MID], found.jobs[DEAR], found.handed) == (0, 5, {CHEAP: {DEAR: 5}})


def test_one_that_is_held_and_gets_no_boxes_has_what_its_boxes_run() -> None:
    assert given({"cheap+dear": 5}, {CHEAP: 4}, {CHEAP: 1}).handed == {CHEAP: {DEAR: 4}}
    assert given({"cheap+dear": 5}, {CHEAP: 1}, {CHEAP: 4}).handed == {CHEAP: {DEAR: 4}}


def looked(
    size: int | None,
    before: Mapping[PoolName, PoolSize] | None = None,
    at_ms: int = NOW_MS,
    members: tuple[Member, ...] = (),
    provider: str = ENGINE,
) -> dict[PoolName, PoolSize]:
    """Five jobs wait for both pools; `size`: of an order for the cheap one."""
    desired = pools_wish([pool("cheap", most=10, provider=provider), pool("dear", most=10, cost=2.0)], members)
    order = Override(kind=OverrideKind.SCALE, pool=CHEAP, size=size or 0, reason="a show", by="ops")
    memory = {name: up_to(found.memory, at_ms) for name, found in (before or {}).items()}
    observed = pools_look(desired, {"cheap+dear": 5}, now_ms=at_ms)
    return sizes(desired, observed, memory, () if size is None else (order,))


def wanted(found: Mapping[PoolName, PoolSize]) -> tuple[int, int]:
    return found[CHEAP].wanted, found[DEAR].wanted


def test_an_order_hands_on_at_once_and_says_so_and_its_end_takes_back() -> None:
    found = looked(0)
    assert wanted(found) == (0, 5)
    assert found[CHEAP].why == "ordered: a show (by ops): 0 wanted, 0 there; dear takes 5 of its jobs"
    assert found[DEAR].why == "5 jobs wait, 1 a GPU: 5 wanted, 0 there; 5 of them are cheap's too"
    assert wanted(looked(2, found)) == (2, 3)
    assert wanted(looked(None, found)) == (5, 0)


def test_a_pool_that_is_held_and_gets_no_boxes_says_that_too() -> None:
    found = looked(2)
    assert found[CHEAP].why == "ordered: a show (by ops): 2 wanted, 0 there; dear takes 3 of its jobs"
    found = looked(2, found, NOW_MS + AWAITED_MS)
    told = "ordered: a show (by ops): 2 wanted, 0 there; no box came for 2 min: dear takes 5 of its jobs"
    assert (found[CHEAP].why, wanted(found)) == (told, (2, 5))


def test_boxes_that_somebody_else_started_run_jobs_whatever_is_ordered() -> None:
    three = tuple(member(n, "cheap") for n in (1, 2, 3))
    assert wanted(looked(0, members=three, provider=JOIN)) == (0, 2)
    assert wanted(looked(0, members=three)) == (0, 5)
