"""max_unavailable as a per cent: of each pool's members that are in, and of the named machines."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import structs

from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.drift.table import diff
from emp_orch.fleet.model.fleet import Member
from emp_orch.fleet.plan.operations import plan
from emp_orch.fleet.policy.allowance import full, limits
from emp_orch.fleet.policy.gate import gate
from emp_orch.fleet.policy.holds import Decision
from emp_orch.fleet.policy.memory import Memory, Rollout
from emp_orch.fleet.policy.situation import Situation
from support.fleet.fleets import NOW_MS, SIMULATION, look, one, report
from support.fleet.pools import asked, member, pool, pools_wish

NAMED = tuple(one([SIMULATION], machine_id=f"m{n}") for n in range(3))


def fleet_of(members: Iterable[Member], percent: int | None) -> Desired:
    """Pools renders and spare with `members`, and three named machines, all of which a new generation changes."""
    desired = pools_wish([pool(), pool("spare")], members)
    base = structs.replace(desired, machines={**desired.machines, **{m.id: m for m in NAMED}}, generation=2)
    digests = {i: f"new-{i}" for i in base.machines}
    return structs.replace(base, digests=digests, max_unavailable_percent=percent)


def decided(desired: Desired, memory: Memory | None = None) -> Decision:
    observed = look(*desired.machines.values(), machines={i: report(m) for i, m in desired.machines.items()})
    drifts = diff(desired, observed)
    situation = Situation(
        desired=desired,
        observed=observed,
        drifts=drifts,
        memory=memory or Memory(),
        quarantined={},
        overrides=(),
        running=frozenset(),
        jitter=0.0,
    )
    return gate(plan(desired, drifts), situation)


def sent(decision: Decision) -> list[str]:
    return sorted(o.machine_id for o in decision.run if o.key.startswith("send-configuration"))


def test_a_per_cent_counts_each_pool_and_the_named_machines_for_themselves() -> None:
    desired = fleet_of([*(member(n) for n in range(8)), member(0, "spare"), member(1, "spare")], 25)
    assert sent(decided(desired)) == ["m0", "renders-0", "renders-1", "spare-0"]
    why = {str(h.operation.machine_id): h.why for h in decided(desired).held}
    assert why["renders-2"] == "max_unavailable: 2 of 2 of pool renders are out already (renders-0, renders-1)"
    assert why["spare-1"] == "max_unavailable: 1 of 1 of pool spare are out already (spare-0)"
    assert why["m1"] == "max_unavailable: 1 of 1 are out already (m0)"


def test_a_number_counts_all_machines_together() -> None:
    desired = structs.replace(fleet_of([member(n) for n in range(8)], None), max_unavailable=2)
    assert len(sent(decided(desired))) == 2


def test_only_members_that_are_in_and_stay_count_and_one_may_always_be_out() -> None:
    there = [member(n) for n in range(4)]
    beside = [*(asked(n) for n in range(10, 20)), *(member(n, leaving_ms=NOW_MS) for n in range(20, 30))]
    assert limits(fleet_of([*there, *beside], 50)) == {"renders": 2, "": 1}
    assert limits(fleet_of([*there, *beside], 1)) == {"renders": 1, "": 1}
    assert limits(fleet_of(there, 100)) == {"renders": 4, "": 3}


def test_a_generation_is_held_in_the_pool_that_it_was_given_to_in_vain_only() -> None:
    desired = fleet_of([*(member(n) for n in range(4)), *(member(n, "spare") for n in range(4))], 50)
    assert full(desired, [member(0).id, member(1).id]) == {"renders"}
    assert full(desired, [member(0).id, member(0, "spare").id]) == frozenset()
    touched = frozenset({member(0).id, member(1).id})
    memory = Memory(rollout=Rollout(generation=2, pending=frozenset(desired.machines), touched=touched))
    assert sent(decided(desired, memory)) == ["m0", "renders-0", "renders-1", "spare-0", "spare-1"]
