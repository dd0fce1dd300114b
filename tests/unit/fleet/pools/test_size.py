"""What size a pool should have and why, what it differs by, and what that leads to."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.model.fleet import MemberState, PoolName
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.pools import BoxState
from emp_orch.fleet.plan.operations import Verb, plan
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.pools.differences import pool_drift
from emp_orch.fleet.pools.memory import AWAITED_MS, PoolMemory
from emp_orch.fleet.pools.size import PoolSize, sizes, who_goes
from emp_orch.fleet.pools.standing import APPEARS_MS, SILENT_MS
from emp_orch.fleet.round import Inputs, decide
from support.fleet.fleets import NOW_MS
from support.fleet.pools import RENDERS, asked, member, pool, pools_look, pools_wish

THREE = [member(n) for n in (1, 2, 3)]
FIVE = Override(kind=OverrideKind.SCALE, pool=RENDERS, size=5, reason="a show", by="ops")


def size_of(desired: Desired, observed: Observed, *orders: Override, before: PoolMemory | None = None) -> PoolSize:
    return sizes(desired, observed, {} if before is None else {RENDERS: before}, orders)[RENDERS]


def minutes(desired: Desired, observed: Observed, *orders: Override, before: PoolMemory | None = None) -> str:
    """What differs, and the plan, as text."""
    found = sizes(desired, observed, {} if before is None else {RENDERS: before}, orders)
    drifts = pool_drift(found, desired, observed)
    lines = [f"{d.kind} {d.subject}: {d.desired}, {d.observed}; {d.cause}" for d in drifts]
    lines += [f"{n}. {o.text}" for n, o in enumerate(plan(desired, drifts), start=1)]
    return "\n".join(lines).replace("  [emp.yaml:renders]", "")


# --- the size, in words

WORDS: dict[str, tuple[Desired, Observed, tuple[Override, ...], int, str]] = {}


def words(name: str, told: str, wanted: int, changes: dict[str, Any], waiting: int, *orders: Override) -> None:
    busy = changes.pop("busy", ())
    unread = changes.pop("unread", False)
    desired = pools_wish([pool(**changes)], THREE)
    observed = pools_look(desired, {"renders": waiting} if waiting else {}, busy=busy, unread=unread)
    WORDS[name] = (desired, observed, orders, wanted, told)


words("more than there are", "12 jobs wait, 1 a GPU: 12 wanted, 3 there", 12, {}, 12)
words("one job", "1 job waits, 1 a GPU: 1 wanted, 3 there", 1, {}, 1)
words("none", "0 jobs wait, 1 a GPU: 0 wanted, 3 there", 0, {}, 0)
words("those that run", "1 job waits, 2 run, 1 a GPU: 3 wanted, 3 there", 3, {"busy": ["renders-1", "renders-2"]}, 1)
words("only those", "1 runs, 1 a GPU: 1 wanted, 3 there", 1, {"busy": ["renders-1"]}, 0)
words("GPUs", "9 jobs wait, 2 a GPU, 2 GPUs a member: 3 wanted, 3 there", 3, {"num_gpus": 2, "jobs_per_gpu": 2.0}, 9)
words("several GPUs a job", "3 jobs wait, 0.5 a GPU: 6 wanted, 3 there", 6, {"jobs_per_gpu": 0.5}, 3)
words("at most", "90 jobs wait, 1 a GPU, at most 4: 4 wanted, 3 there", 4, {"most": 4}, 90)
words("at least", "0 jobs wait, 1 a GPU, at least 2: 2 wanted, 3 there", 2, {"least": 2}, 0)
words("a number", "emp.yaml says so: 4 wanted, 3 there", 4, {"least": 4, "most": 4}, 90)
words("later", "12 jobs wait, 1 a GPU: 3 wanted, 3 there; up to 12 in 15 s", 3, {"up_after_s": 15.0}, 12)
words("much later", "0 jobs wait, 1 a GPU: 3 wanted, 3 there; down to 0 in 5 min", 3, {"down_after_s": 300.0}, 0)
words("unread", "nobody could read the queue: 3 wanted, 3 there", 3, {"unread": True}, 12)
words("ordered", "ordered: a show (by ops): 5 wanted, 3 there", 5, {"up_after_s": 15.0}, 0, FIVE)
words("too much", "ordered: a show (by ops); at most 4: 4 wanted, 3 there", 4, {"most": 4}, 0, FIVE)


@pytest.mark.parametrize("name", WORDS)
def test_a_size_says_why(name: str) -> None:
    desired, observed, orders, wanted, told = WORDS[name]
    found = size_of(desired, observed, *orders)
    assert (found.wanted, found.in_words) == (wanted, told)


def test_the_cheapest_pool_that_can_run_a_job_takes_it_as_far_as_it_may_grow() -> None:
    cheap, dear = pool("cheap", most=3, cost=1.0), pool("dear", most=10, cost=4.0)
    desired = pools_wish([dear, cheap])
    observed = pools_look(desired, {"cheap+dear": 5, "dear": 2})
    found = sizes(desired, observed, {})
    assert {name: s.wanted for name, s in found.items()} == {"dear": 4, "cheap": 3}
    only_dear = sizes(desired, pools_look(desired, {"cheap": 2, "cheap+dear": 2}), {})
    assert {name: s.wanted for name, s in only_dear.items()} == {"dear": 1, "cheap": 3}


def test_what_no_pool_has_room_for_is_told_of_the_cheapest() -> None:
    desired = pools_wish([pool("cheap", most=3), pool("dear", most=1, cost=4.0)])
    found = sizes(desired, pools_look(desired, {"cheap+dear": 100}), {})
    assert found[PoolName("cheap")].why == "99 jobs wait, 1 a GPU, at most 3: 3 wanted, 0 there"
    assert found[PoolName("dear")].why == "1 job waits, 1 a GPU: 1 wanted, 0 there"


def test_what_is_known_of_no_pool_begins_with_those_that_are_there() -> None:
    desired = pools_wish([pool(up_after_s=15.0, down_after_s=300.0)], THREE)
    assert size_of(desired, pools_look(desired)).wanted == 3


def test_an_order_that_is_lifted_leaves_its_size_until_the_queue_says_otherwise() -> None:
    desired = pools_wish([pool(down_after_s=300.0)], THREE)
    ordered = size_of(desired, pools_look(desired), FIVE)
    assert size_of(desired, pools_look(desired), before=ordered.memory).wanted == 5


# --- who goes


def test_who_never_joined_goes_first_then_who_is_idle_for_the_longest_and_nobody_at_work() -> None:
    desired = pools_wish([pool()], [*THREE, member(4), asked(5, ago_ms=9_000), asked(6)])
    idle = {m: NOW_MS - ago for m, ago in (("renders-1", 100), ("renders-2", 900), ("renders-4", 500))}
    before = PoolMemory(size=6, idle={m.id: idle[m.id] for m in desired.members.values() if m.id in idle})
    observed = pools_look(desired, busy=["renders-3"])
    found = size_of(desired, observed, before=before)
    assert found.wanted == 1
    assert who_goes(found) == ("renders-6", "renders-5", "renders-2", "renders-4", "renders-1")


def test_who_is_silent_may_be_at_work_and_is_not_chosen() -> None:
    desired = pools_wish([pool()], THREE)
    assert who_goes(size_of(desired, pools_look(desired, silent=["renders-1"]))) == ("renders-2", "renders-3")


def test_nobody_alive_goes_in_place_of_one_that_is_silent() -> None:
    desired = pools_wish([pool(least=2)], THREE)
    found = size_of(desired, pools_look(desired, silent=["renders-1"]))
    assert (found.wanted, found.there, who_goes(found)) == (2, 3, ())


def test_one_that_is_to_go_already_is_none_of_those_there() -> None:
    desired = pools_wish([pool()], [member(1), member(2, leaving_ms=NOW_MS - 5)])
    observed = pools_look(desired, {"renders": 1})
    found = size_of(desired, observed)
    assert (found.there, who_goes(found)) == (1, ())


# --- what differs, and what that leads to


def test_a_pool_that_is_as_it_should_be_differs_in_nothing() -> None:
    desired = pools_wish([pool()], THREE)
    assert minutes(desired, pools_look(desired, {"renders": 3})) == ""


def test_members_are_asked_for_some_at_once() -> None:
    desired = pools_wish([pool()], THREE)
    assert minutes(desired, pools_look(desired, {"renders": 5})) == (
        "pool-short renders: 5 members, 3 there; 5 jobs wait, 1 a GPU: 5 wanted, 3 there\n"
        "1. create member renders (2)  (start): 5 jobs wait, 1 a GPU: 5 wanted, 3 there"
    )
    many = minutes(desired, pools_look(desired, {"renders": 40}))
    assert "create member renders (10)  (start)" in many


def test_no_more_boxes_than_the_pool_may_have_also_while_some_are_on_their_way_out() -> None:
    going = [member(n, leaving_ms=1) for n in (4, 5)]
    desired = pools_wish([pool(most=5)], [*THREE, *going])
    told = minutes(desired, pools_look(desired, {"renders": 9}, busy=["renders-4"]))
    assert told.startswith("pool-short renders: 5 members, 3 there; ")
    assert "others are on their way out first" in told
    assert "create member" not in told


def test_what_the_engine_says_stands_in_the_cause() -> None:
    desired = pools_wish([pool()])
    told = minutes(desired, pools_look(desired, {"renders": 1}, error="no such partition"))
    assert "0 there; its engine says: no such partition" in told


def test_members_that_do_not_come_are_told_with_the_words_of_their_engine() -> None:
    desired = pools_wish([pool()], [asked(1, ago_ms=AWAITED_MS)])
    observed = pools_look(
        desired, {"renders": 1}, boxes={"renders-1": BoxState.PENDING}, words="no node has a free gpu"
    )
    assert minutes(desired, observed) == (
        "pool-short renders: 1 members, 0 there; 1 asked for 120 s ago or more: no node has a free gpu"
    )
    fresh = pools_wish([pool()], [asked(1, ago_ms=AWAITED_MS - 1)])
    assert minutes(fresh, structs.replace(observed)) == ""


def test_a_member_is_drained_then_removed_when_it_holds_nothing() -> None:
    still = PoolMemory(size=0)
    desired = pools_wish([pool()], [member(1)])
    assert minutes(desired, pools_look(desired), before=still) == (
        "pool-over renders-1: 0 of renders, idle; 0 jobs wait, 1 a GPU: 0 wanted, 1 there\n"
        "1. drain member renders-1  (stop): 0 jobs wait, 1 a GPU: 0 wanted, 1 there"
    )
    going = pools_wish([pool()], [member(1, leaving_ms=7, why="not needed")])
    busy = minutes(going, pools_look(going, busy=["renders-1"]), before=still)
    assert busy == "pool-over renders-1: 0 of renders, finishes its job; not needed"
    undrained = pools_look(desired)
    ends = structs.replace(pools_look(going), machines=undrained.machines, workers=undrained.workers)
    assert minutes(going, ends, before=still) == "pool-over renders-1: 0 of renders, ends its workers; not needed"
    assert minutes(going, pools_look(going), before=still) == (
        "pool-over renders-1: 0 of renders, holds nothing; not needed\n1. remove member renders-1  (remove): not needed"
    )


def test_a_silent_one_on_its_way_out_is_left_to_its_lease() -> None:
    going = pools_wish([pool()], [member(1, leaving_ms=7)])
    assert "remove member" not in minutes(going, pools_look(going, silent=["renders-1"]))


GONE = {
    "ended": (member(1), {"renders-1": BoxState.ENDED}, ["renders-1"], "its box ended: out of memory"),
    "ended, and speaks": (member(1), {"renders-1": BoxState.ENDED}, [], ""),
    "asked for, no box": (asked(1, ago_ms=APPEARS_MS), {}, [], "its engine has no box for it"),
    "just asked for": (asked(1, ago_ms=APPEARS_MS - 1), {}, [], ""),
    "no box, and speaks": (member(1), {}, [], ""),
    "no box, silent for a moment": (member(1), {}, ["renders-1"], ""),
    "left, no box": (
        *(member(1, state=MemberState.LEFT), {}, ["renders-1"]),
        "it left, and its engine has no box for it any more",
    ),
    "left, and comes again": (member(1, state=MemberState.LEFT), {"renders-1": BoxState.PENDING}, ["renders-1"], ""),
}


@pytest.mark.parametrize("name", GONE)
def test_who_is_gone_by_the_word_of_its_engine_is_forgotten(name: str) -> None:
    one, boxes, silent, why = GONE[name]
    desired = pools_wish([pool(least=1)], [one])
    told = minutes(desired, pools_look(desired, boxes=boxes, silent=silent, words="out of memory"))
    assert (f"member-gone renders-1: a member of renders, gone; {why}\n" in told) == bool(why)
    assert (f"remove member renders-1  (remove): {why}" in told) == bool(why)


LEAVES = {
    "waits for a place": ({"renders-1": BoxState.PENDING}, "", "command", None),
    "cannot be told": ({"renders-1": BoxState.UNKNOWN}, "", "command", None),
    "runs, and may come in": ({"renders-1": BoxState.RUNNING}, "", "command", 600_000),
    "ended": ({"renders-1": BoxState.ENDED}, "", "command", 0),
    "is gone": ({}, "", "command", 0),
    "of an engine that says nothing": ({}, "timed out", "command", None),
    "that somebody else starts": ({}, "", "join", 0),
}


@pytest.mark.parametrize("name", LEAVES)
def test_who_left_is_awaited_while_its_engine_has_a_box_for_it(name: str) -> None:
    boxes, error, provider, after_ms = LEAVES[name]
    desired = pools_wish([pool(least=1, provider=provider)], [member(1, state=MemberState.LEFT)])
    memory, seen = Memory(), []
    for now_ms in (NOW_MS, NOW_MS + 599_999, NOW_MS + 600_000, NOW_MS + 10_000_000):
        observed = pools_look(desired, boxes=boxes, error=error, silent=["renders-1"], now_ms=now_ms)
        done = decide(Inputs(desired=desired, observed=observed, memory=memory))
        memory = done.memory
        if any(o.machine_id == "renders-1" for o in done.decision.run):
            seen.append(now_ms - NOW_MS)
    assert seen[:1] == ([] if after_ms is None else [after_ms])


def test_whose_node_is_gone_is_awaited_while_its_engine_looks_for_another() -> None:
    desired = pools_wish([pool(least=1)], [member(1)])
    for state, awaited in ((BoxState.PENDING, True), (BoxState.RUNNING, False)):
        boxes, silent_ms = {"renders-1": state}, 10_000_000
        observed = pools_look(desired, boxes=boxes, silent=["renders-1"], silent_ms=silent_ms, busy=["renders-1"])
        observed = structs.replace(observed, observing_since_ms=0)
        done = decide(Inputs(desired=desired, observed=observed, memory=Memory()))
        assert [o.verb for o in done.decision.run] == ([] if awaited else [Verb.FORGET_MEMBER])
    waiting = pools_look(desired, boxes={"renders-1": BoxState.PENDING}, silent=["renders-1"], busy=["renders-1"])
    found = structs.replace(size_of(desired, waiting), wanted=0)
    assert who_goes(found) == ("renders-1",)


def test_who_left_and_waits_goes_before_who_is_idle_and_holds_nothing() -> None:
    left = member(2, state=MemberState.LEFT)
    desired = pools_wish([pool()], [member(1), left, member(3)])
    observed = pools_look(desired, {"renders": 2}, boxes={"renders-2": BoxState.PENDING}, silent=["renders-2"])
    found = structs.replace(size_of(desired, observed), wanted=2)
    assert who_goes(found) == ("renders-2",)
    leaving = pools_wish([pool()], [member(1), structs.replace(left, leaving_ms=NOW_MS)])
    boxes = {"renders-2": BoxState.PENDING}
    told = minutes(leaving, pools_look(leaving, {"renders": 1}, boxes=boxes, silent=["renders-2"]))
    assert "pool-over renders-2: 1 of renders, holds nothing" in told and "remove member renders-2" in told


def test_who_is_silent_for_long_and_has_no_box_is_gone_and_another_is_asked_for() -> None:
    desired = pools_wish([pool(least=1)], [member(1)])
    observed = pools_look(desired, boxes={}, silent=["renders-1"])
    old = structs.replace(observed, now_ms=NOW_MS + SILENT_MS)
    told = minutes(desired, old)
    assert "create member renders  (start)" in told
    assert "remove member renders-1  (remove): its engine has no box for it" in told


def test_what_its_engine_does_not_tell_removes_nobody() -> None:
    desired = pools_wish([pool()], [asked(1, ago_ms=10 * APPEARS_MS)])
    assert "remove" not in minutes(desired, pools_look(desired, {"renders": 1}, error="timed out"))


def test_a_box_that_is_no_members_is_given_back() -> None:
    desired = pools_wish([pool()], [])
    observed = pools_look(desired, boxes={"renders-9": BoxState.RUNNING})
    assert minutes(desired, observed) == (
        "member-gone renders-9: no box in renders, running; "
        "its engine has a box for renders-9, which is no member any more\n"
        "1. remove member renders-9  (remove): its engine has a box for renders-9, which is no member any more"
    )


def test_a_pool_whose_boxes_join_by_themselves_is_asked_for_nothing() -> None:
    desired = pools_wish([pool(least=2, most=9, provider="join")], [member(1), *(member(n) for n in range(2, 9))])
    assert minutes(desired, pools_look(desired)) == ""
    few = pools_wish([pool(least=2, most=9, provider="join")], [member(1)])
    observed = pools_look(few, {"renders": 5})
    since = PoolMemory(size=1, short_ms=NOW_MS - AWAITED_MS)
    assert minutes(few, observed) == ""
    assert minutes(few, observed, before=since) == (
        "pool-short renders: 2 at least members, 1 there; its boxes are started by somebody else; "
        "`emp pool join renders` prints the line"
    )
