"""When a wait is in vain: what the reconciler said of each difference → who has to act."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.control.apply.publish import _refuse_to_wait
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.kinds import Desired, Drift, Kind
from emp_orch.fleet.model.fleet import MachineId
from emp_orch.fleet.policy.holds import Hold
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.policy.standstill import ANSWERS_AGAIN_MS, STANDS_MS, standstill
from emp_orch.store.fleet.status import FleetStatus, RolloutStatus
from support.fleet.fleets import wish

NOW_MS = 1_000_000


def item(kind: Kind, subject: str = "m", *, hold: Hold | None = None, action: str = "", age_ms: int = 60_000) -> Item:
    drift = Drift(
        kind=kind,
        machine_id=MachineId("m"),
        subject=subject,
        desired="",
        observed="",
        cause="",
        origin="",
    )
    return Item(drift=drift, since_ms=NOW_MS - age_ms, action=action, hold=hold)


SPENT = item(Kind.PROGRAM_FATAL, "web", hold=Hold.QUARANTINE, action="start program m web")
HALTED = item(Kind.CONFIG_BEHIND, hold=Hold.ROLLOUT, action="send configuration m")
PAUSED = item(Kind.CONFIG_BEHIND, hold=Hold.PAUSE, action="send configuration m", age_ms=0)
ILL = item(Kind.PROGRAM_UNHEALTHY, "web", hold=Hold.PAUSE, action="restart program m web", age_ms=STANDS_MS - 1)
OPEN = item(Kind.MACHINE_MISSING, hold=Hold.BREAKER, action="start machine m", age_ms=0)
UNSEEN = item(Kind.MACHINE_SURPLUS, hold=Hold.UNKNOWN, action="remove machine m", age_ms=60_000)
TAKEN = item(Kind.PROGRAM_PORT_TAKEN, "api")


@pytest.mark.parametrize(
    ("items", "left"),
    [
        pytest.param((SPENT,), 1, id="quarantine"),
        pytest.param((SPENT, HALTED), 2, id="halted rollout"),
        pytest.param((SPENT, TAKEN), 2, id="port taken"),
        pytest.param((item(Kind.PROGRAM_PORT_TAKEN, age_ms=STANDS_MS - 1),), 0, id="just seen"),
        pytest.param((SPENT, item(Kind.PROGRAM_STARTING, "x")), 0, id="another comes up"),
        pytest.param((SPENT, item(Kind.PROGRAM_FATAL, "x", action="start program m x")), 0, id="another is tried"),
        pytest.param((SPENT, item(Kind.CONFIG_BEHIND, hold=Hold.UNAVAILABLE)), 0, id="another has its turn"),
        pytest.param((item(Kind.MACHINE_UNREACHABLE, age_ms=ANSWERS_AGAIN_MS - 1),), 0, id="a host may be back"),
        pytest.param((item(Kind.MACHINE_UNREACHABLE, age_ms=ANSWERS_AGAIN_MS),), 1, id="a host that is away"),
        pytest.param((UNSEEN,), 1, id="an action that nobody can see the effect of"),
        pytest.param((structs.replace(UNSEEN, since_ms=NOW_MS - 1_000),), 0, id="not seen for a moment"),
        pytest.param((item(Kind.REPORT_MALFORMED),), 0, id="a report may be written anew"),
        pytest.param((PAUSED, SPENT), 2, id="a change under a pause"),
        pytest.param((PAUSED, item(Kind.MACHINE_BOOTING, "n")), 0, id="a pause, and another comes up"),
        pytest.param((ILL,), 0, id="under a pause, but it may get well"),
        pytest.param((structs.replace(ILL, since_ms=NOW_MS - STANDS_MS),), 1, id="under a pause, and it does not"),
        pytest.param((OPEN, structs.replace(OPEN, drift=ILL.drift)), 2, id="the breaker is open"),
        pytest.param((OPEN, item(Kind.MACHINE_BOOTING, "n")), 0, id="the breaker lets one be tried"),
    ],
)
def test_who_has_to_act(items: tuple[Item, ...], left: int) -> None:
    drifts = [i.drift for i in items]
    assert len(standstill(drifts, items, NOW_MS, goes_back=False)) == left


def test_what_is_taken_back_by_itself_is_waited_for() -> None:
    assert standstill([SPENT.drift], [SPENT], NOW_MS, goes_back=True) == ()


def test_of_what_the_reconciler_has_not_said_nobody_knows() -> None:
    assert standstill([SPENT.drift, TAKEN.drift], [SPENT], NOW_MS, goes_back=False) == ()


def said(generation: int, *items: Item, rollout: RolloutStatus | None = None) -> FleetStatus:
    return FleetStatus(
        fleet="f",
        generation=generation,
        leader="a",
        epoch=1,
        at_ms=NOW_MS,
        interval_ms=2_000,
        drift=items,
        plan=(),
        rollout=rollout,
    )


def wait(desired: Desired, status: FleetStatus, *items: Item) -> str:
    """What ends a wait of `emp apply`; empty when it goes on."""
    try:
        _refuse_to_wait(tuple(i.drift for i in items), desired, status, NOW_MS)
    except EmpError as e:
        return e.message
    return ""


def test_a_wait_ends_where_people_must_act_or_another_generation_is_in_force() -> None:
    desired = wish(generation=3)
    spent = structs.replace(SPENT, held="needs a person: 5 tries did not help")
    assert wait(desired, said(3, spent), spent) == (
        "generation 3 is in force, and what is left needs a person:"
        "\n  program-fatal: web: needs a person: 5 tries did not help"
    )
    assert wait(desired, said(2, spent), spent) == "", "the reconciler has not decided on this one yet"
    assert wait(desired, said(4), spent) == "generation 3 is no longer in force: generation 4 took its place"


def test_a_wait_that_a_pause_or_the_breaker_holds_says_how_to_end_it() -> None:
    held = structs.replace(PAUSED, held="m is paused: I look at it (by me)")
    with pytest.raises(EmpError) as e:
        _refuse_to_wait((held.drift,), wish(generation=3), said(3, held), NOW_MS)
    assert e.value.message.endswith("\n  config-behind: m: m is paused: I look at it (by me)")
    assert e.value.hint == "`emp status` says which `emp resume` ends it; emp goes on then"


def test_a_wait_goes_on_while_a_rollout_may_be_taken_back_by_itself() -> None:
    desired = wish(generation=3)
    asked = structs.replace(desired, limits=structs.replace(desired.limits, rollback=True))
    halted = RolloutStatus(generation=3, pending=1, stalled=False, since_progress_ms=NOW_MS)
    assert wait(asked, said(3, HALTED, rollout=halted), HALTED) == ""
    assert wait(desired, said(3, HALTED, rollout=halted), HALTED) != ""
