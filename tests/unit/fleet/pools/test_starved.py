"""A pool that gets no boxes: others run what it has none for, and it takes its share back as they come."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from emp_orch.fleet.model.fleet import Member, PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.pools.memory import AWAITED_MS, PoolMemory, hungered, is_starved, up_to
from emp_orch.fleet.pools.shares import shared
from emp_orch.fleet.pools.size import PoolSize, sizes
from support.fleet.fleets import NOW_MS
from support.fleet.pools import asked, member, pool, pools_look, pools_wish

CHEAP, MID, DEAR = PoolName("cheap"), PoolName("mid"), PoolName("dear")
POOLS = {p.name: p for p in (pool("dear", most=8, cost=3.0), pool("cheap", most=10, cost=1.0), pool("mid", cost=2.0))}
NONE = dict.fromkeys(POOLS, 0)


def waiting(groups: Mapping[str, int]) -> Observed:
    return pools_look(pools_wish([]), groups)


def test_what_a_pool_without_boxes_has_none_for_is_the_next_ones_too() -> None:
    found = shared(waiting({"cheap+dear": 12}).waiting, POOLS, NONE, {})
    assert (found.jobs, found.handed) == ({DEAR: 2, CHEAP: 10, MID: 0}, {})
    found = shared(waiting({"cheap+dear": 5}).waiting, POOLS, NONE, {CHEAP: 0})
    assert (found.jobs, found.handed) == ({DEAR: 5, CHEAP: 5, MID: 0}, {CHEAP: {DEAR: 5}})
    found = shared(waiting({"cheap+dear": 5}).waiting, POOLS, {**NONE, CHEAP: 1}, {CHEAP: 3})
    assert (found.jobs[DEAR], found.jobs[CHEAP], found.handed) == (3, 5, {CHEAP: {DEAR: 3}})
    assert found.taken(DEAR) == {CHEAP: 3} and found.taken(CHEAP) == {}


def test_nobody_takes_more_than_it_may_grow_or_what_it_cannot_run() -> None:
    found = shared(waiting({"cheap": 4, "cheap+dear": 12}).waiting, POOLS, NONE, {CHEAP: 0})
    assert (found.jobs, found.handed) == ({DEAR: 8, CHEAP: 10, MID: 0}, {CHEAP: {DEAR: 2}})
    found = shared(waiting({"cheap": 4, "cheap+dear": 40}).waiting, POOLS, NONE, {CHEAP: 0})
    assert (found.jobs, found.handed) == ({DEAR: 8, CHEAP: 36, MID: 0}, {})


def test_one_that_gets_none_either_hands_on_too() -> None:
    found = shared(waiting({"cheap+dear+mid": 5}).waiting, POOLS, NONE, {CHEAP: 0, MID: 2})
    assert found.jobs == {CHEAP: 5, MID: 5, DEAR: 3}
    assert found.handed == {CHEAP: {MID: 5}, MID: {DEAR: 3}}


# --- over time


def looked(
    at_ms: int, jobs: int, before: Mapping[PoolName, PoolSize], members: list[Member], silent: tuple[str, ...] = ()
) -> dict[PoolName, PoolSize]:
    desired = pools_wish([pool("cheap", most=10), pool("dear", most=10, cost=2.0, down_after_s=300.0)], members)
    observed = pools_look(desired, {"cheap+dear": jobs} if jobs else {}, silent=silent, now_ms=at_ms)
    return sizes(desired, observed, {name: up_to(size.memory, at_ms) for name, size in before.items()})


def wanted(found: Mapping[PoolName, PoolSize]) -> tuple[int, int]:
    return found[CHEAP].wanted, found[DEAR].wanted


def test_after_a_grace_the_next_pool_takes_over_and_gives_back_as_boxes_come() -> None:
    found = looked(NOW_MS, 5, {}, [])
    assert wanted(found) == (5, 0)
    found = looked(NOW_MS + AWAITED_MS - 1, 5, found, [])
    assert (wanted(found), "no box" in found[CHEAP].why) == ((5, 0), False)
    found = looked(NOW_MS + AWAITED_MS, 5, found, [])
    assert wanted(found) == (5, 5)
    assert "; no box came for 2 min: dear takes 5 of its jobs" in found[CHEAP].why
    assert "; 5 of them are cheap's too" in found[DEAR].why
    two = [member(n, "cheap") for n in (1, 2)]
    found = looked(NOW_MS + AWAITED_MS + 1_000, 5, found, two)
    assert wanted(found) == (5, 5)  # it shrinks after its own time
    assert "dear takes 3 of its jobs" in found[CHEAP].why
    all_ = [member(n, "cheap") for n in range(1, 6)]
    found = looked(NOW_MS + AWAITED_MS + 2_000, 5, found, all_)
    assert "no box" not in found[CHEAP].why and found[DEAR].why.startswith("5 jobs wait") is False
    found = looked(NOW_MS + AWAITED_MS + 302_000, 5, found, all_)
    assert wanted(found) == (5, 0)


def test_a_box_now_and_then_is_an_engine_that_works() -> None:
    found = looked(NOW_MS, 5, {}, [])
    for count in range(1, 5):
        found = looked(NOW_MS + count * (AWAITED_MS - 1), 5, found, [member(n, "cheap") for n in range(count)])
        assert wanted(found) == (5, 0)


def test_who_was_asked_for_and_never_came_is_no_box() -> None:
    found = looked(NOW_MS, 2, {}, [asked(1, "cheap")])
    found = looked(NOW_MS + AWAITED_MS, 2, found, [asked(1, "cheap")])
    assert wanted(found) == (2, 2)


def test_who_is_silent_has_a_box_as_far_as_anybody_knows() -> None:
    both = [member(1, "cheap"), member(2, "cheap")]
    found = looked(NOW_MS, 2, {}, both, ("cheap-1",))
    found = looked(NOW_MS + AWAITED_MS, 2, found, both, ("cheap-1",))
    assert wanted(found) == (2, 0)


def test_without_jobs_nobody_starves() -> None:
    found = looked(NOW_MS, 3, {}, [])
    found = looked(NOW_MS + AWAITED_MS, 0, found, [])
    found = looked(NOW_MS + AWAITED_MS + 1, 3, found, [])
    assert wanted(found) == (3, 0)


def test_the_memory_of_other_versions_is_read() -> None:
    old = b'{"size": 3, "short_ms": 5}'
    assert msgspec.json.decode(old, type=PoolMemory) == PoolMemory(size=3, short_ms=5)
    newer = b'{"size": 3, "starved_ms": 7, "boxes": 1, "another": true}'
    found = msgspec.json.decode(newer, type=PoolMemory)
    assert (found.starved_ms, found.boxes) == (7, 1)
    assert up_to(found, 6).starved_ms == 6
    assert b"starved" not in msgspec.json.encode(PoolMemory(size=3))


def test_hunger_begins_once_and_ends_when_all_have_come() -> None:
    hungry = hungered(PoolMemory(size=3), 0, 1_000)
    assert not is_starved(hungry, AWAITED_MS + 999) and is_starved(hungry, AWAITED_MS + 1_000)
    assert hungered(hungry, 2, 2_000).starved_ms == 2_000
    assert hungered(hungry, 2, AWAITED_MS + 1_000).starved_ms == 1_000
    assert hungered(hungry, 3, AWAITED_MS + 1_000).starved_ms is None
