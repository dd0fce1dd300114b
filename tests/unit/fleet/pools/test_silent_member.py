"""A member that says nothing is forgotten once it has been silent for as long as its pool says, and not before."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.model.observed import Observed
from emp_orch.fleet.plan.operations import Verb
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, decide
from support.fleet.fleets import NOW_MS
from support.fleet.pools import member, pool, pools_look, pools_wish

DESIRED = pools_wish([pool(least=1, most=4, provider="join")], [member(1), member(2)])
SILENT = MachineId("renders-1")
FORGET_AFTER_MS = int(DESIRED.pools[DESIRED.members[SILENT].pool].forget_after_s * 1000)


def look(after_ms: int, *, withdrawn: bool) -> Observed:
    """As of `after_ms`: renders-2 in order; of renders-1 no report, or one of NOW_MS."""
    found = pools_look(DESIRED, silent=[SILENT], silent_ms=after_ms, now_ms=NOW_MS + after_ms)
    if withdrawn:
        found = structs.replace(found, machines={i: m for i, m in found.machines.items() if i != SILENT}, workers={})
    return found


@pytest.mark.parametrize("withdrawn", [True, False])
def test_it_is_forgotten_after_its_silence_and_not_before(withdrawn: bool) -> None:
    """Who ends in good order takes its report away some seconds before it says good-bye, or starts anew."""
    memory, forgotten_ms = Memory(), []
    for after_ms in range(1_000, FORGET_AFTER_MS + 30_000, 1_000):
        done = decide(Inputs(desired=DESIRED, observed=look(after_ms, withdrawn=withdrawn), memory=memory))
        memory = done.memory
        if any(o.verb is Verb.FORGET_MEMBER and o.machine_id == SILENT for o in done.decision.run):
            forgotten_ms.append(after_ms)
            break
    assert forgotten_ms and FORGET_AFTER_MS <= forgotten_ms[0] <= FORGET_AFTER_MS + 15_000
