"""What `emp status` and `emp diff` say of a member that is not there: what its leader says, who asks its engine."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.control.status.inspect import as_the_leader_says
from emp_orch.fleet.drift.kinds import Desired, Kind
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.fleet import MemberState
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.model.pools import JOIN, Box, BoxState, SeenPool
from support.fleet.fleets import OLD_MS, fleet, look, machine
from support.fleet.members import member, pool, pooled, wanted

ASKED_FOR = member(state=MemberState.EXPECTED, joined_ms=0)
WAS_IN = member()
WAITS = Box(member_id=ASKED_FOR.id, state=BoxState.PENDING, words="no node has a free gpu")
LATER_MS = OLD_MS + 3_600_000


def seen(box: Box | None) -> Observed:
    """By a leader, whose engine shows that box; by anybody else, who asks no engine."""
    pools = {} if box is None else {ASKED_FOR.pool: SeenPool(boxes=(box,))}
    return look(now_ms=LATER_MS, machines={}, instances={}, pools=pools)


def words(desired: Desired, box: Box) -> list[str]:
    said = as_the_leader_says(diff(desired, seen(None)), diff(desired, seen(box)), desired)
    return [f"{d.kind}: {d.cause}" for d in said if d.machine_id == ASKED_FOR.id]


def test_one_that_was_asked_for_and_whose_box_waits_is_not_said_to_be_forgotten() -> None:
    desired = wanted(ASKED_FOR, of=pooled(pool(provider="swarm")))
    assert [d.kind for d in diff(desired, seen(None))] == [Kind.MEMBER_SILENT]  # as it looks without its engine
    assert words(desired, WAITS) == []
    ended = structs.replace(WAITS, state=BoxState.ENDED, words="no such image")
    assert words(desired, ended) == [
        "member-silent: it was asked for 3600 s ago, and its box never joined; its engine says: ended, no such image"
    ]


def test_one_whose_box_waits_for_a_place_anew_is_said_to_wait() -> None:
    desired = wanted(WAS_IN, of=pooled(pool(provider="swarm")))
    waits = "member-silent: its engine has no place for its box: no node has a free gpu"
    assert words(desired, WAITS) == [waits]


@pytest.mark.parametrize("box", [WAITS, structs.replace(WAITS, state=BoxState.ENDED)])
def test_a_box_that_somebody_else_starts_is_judged_by_who_looks(box: Box) -> None:
    desired = wanted(WAS_IN, of=pooled(pool(provider=JOIN)))
    said = words(desired, box)
    assert len(said) == 1 and "after 600 s of silence it is forgotten" in said[0]


def test_what_is_no_pools_stays_as_it_is_seen() -> None:
    desired = wanted(of=pooled(pool(), base=fleet((), machine())))
    here = diff(desired, look(machines={}, instances={}))
    assert here and as_the_leader_says(here, (), desired) == here
