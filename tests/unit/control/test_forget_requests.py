"""Which machines a person may have forgotten: a member that holds no job, and what emp.yaml names no more."""

from __future__ import annotations

import pytest
from msgspec import structs

from emp_orch.control.reconciler.requests import as_operation
from emp_orch.errors import EmpError
from emp_orch.fleet.drift.kinds import Desired
from emp_orch.fleet.plan.operations import Operation
from emp_orch.fleet.plan.operations import Verb as Does
from emp_orch.store.fleet.requests import Request, Verb
from support.fleet.fleets import NOW_MS, SIMULATION, look, one, report
from support.fleet.pools import asked, member, pool, pools_look, pools_wish

MEMBERS = [member(1), member(2), asked(3)]


def forget(machine_id: str, desired: Desired, *, force: bool = False, silent: bool = False) -> Operation:
    observed = pools_look(desired, busy=["renders-1"], silent=["renders-1"] if silent else [])
    request = Request(verb=Verb.FORGET_MACHINE, machine_id=machine_id, by="cli", force=force)
    return as_operation(request, desired, observed)


@pytest.mark.parametrize("machine_id", ["renders-2", "renders-3"])
def test_a_member_that_holds_no_job_is_forgotten_also_one_that_never_came(machine_id: str) -> None:
    said = forget(machine_id, pools_wish([pool()], MEMBERS))
    assert (said.verb, said.machine_id, said.cause) == (Does.FORGET_MEMBER, machine_id, "asked by cli")


def test_a_member_that_is_at_work_is_forgotten_by_force_only() -> None:
    desired = pools_wish([pool()], MEMBERS)
    with pytest.raises(EmpError, match=r"renders-1 is at work on .*`emp drain renders-1` first, or forget it by force"):
        forget("renders-1", desired)
    assert forget("renders-1", desired, force=True).verb is Does.FORGET_MEMBER


def test_what_a_vanished_member_held_keeps_nobody() -> None:
    assert forget("renders-1", pools_wish([pool()], MEMBERS), silent=True).verb is Does.FORGET_MEMBER


def test_a_member_of_a_pool_that_is_no_more_is_forgotten_too() -> None:
    desired = structs.replace(pools_wish([]), former={member(2).id: member(2)})
    assert forget("renders-2", desired).verb is Does.FORGET_MEMBER


def test_a_machine_of_emp_yaml_is_not_forgotten_by_force_either() -> None:
    box = one([SIMULATION], machine_id="box")
    desired = pools_wish([pool()])
    desired = structs.replace(desired, machines={box.id: box})
    request = Request(verb=Verb.FORGET_MACHINE, machine_id="box", force=True)
    with pytest.raises(EmpError, match=r"box is in emp\.yaml"):
        as_operation(request, desired, look(box, machines={box.id: report(box, seen_ms=NOW_MS - 99_000)}))
