"""A pool's template and its members become machines; what is stored as a generation has none of them."""

from __future__ import annotations

from msgspec import structs

from emp_orch.fleet.desired.members import with_members, without_members
from emp_orch.fleet.desired.workers import known_workers, possible_workers
from emp_orch.fleet.model.fleet import MachineId, PoolName
from support.fleet.fleets import SIMULATION, fleet, machine
from support.fleet.members import member, pool, pooled

BASE = pooled(pool(services=[SIMULATION.name]), base=fleet([SIMULATION], machine("m", services=[SIMULATION.name])))


def test_members_stand_after_the_machines_of_the_file_by_id() -> None:
    found = with_members(BASE, [member("b"), member("a")])
    assert [m.id for m in found.machines] == ["m", "renders-a", "renders-b"]
    assert {m.pool for m in found.machines} == {"", "renders"}
    assert [m.id for m in found.members] == ["renders-a", "renders-b"]


def test_they_are_made_from_the_template() -> None:
    (_, made) = with_members(BASE, [member("a")]).machines
    template = BASE.pools[PoolName("renders")].template
    assert made == structs.replace(template, id=MachineId("renders-a"), pool=PoolName("renders"))


def test_again_with_others_replaces_those_before() -> None:
    once = with_members(BASE, [member("a")])
    assert with_members(once, [member("b")]) == with_members(BASE, [member("b")])


def test_nobody_takes_the_name_of_a_machine_of_the_file() -> None:
    base = structs.replace(BASE, machines=(machine("renders-a"),))
    found = with_members(base, [member("a")])
    assert found.machines == base.machines
    assert found.members == ()


def test_one_of_a_pool_that_is_named_no_more_is_no_machine() -> None:
    found = with_members(structs.replace(BASE, pools={}), [member("a")])
    assert [m.id for m in found.machines] == ["m"]
    assert [m.id for m in found.members] == ["renders-a"]


def test_without_them_it_is_as_the_file_has_it() -> None:
    assert without_members(with_members(BASE, [member("a")])) == BASE
    assert without_members(BASE) is BASE


def test_a_pool_without_members_could_have_workers() -> None:
    known = [w.worker_id for w in known_workers(BASE)]
    assert known == ["m-worker-0"]
    assert [w.worker_id for w in possible_workers(BASE)] == [*known, "renders-any-worker-0"]
    (*_, possible) = possible_workers(BASE)
    assert possible.capabilities["services"] == [SIMULATION.name]


def test_a_pool_of_no_members_could_not() -> None:
    empty = pooled(pool(services=[SIMULATION.name], max_size=0), base=BASE)
    assert [w.worker_id for w in possible_workers(empty)] == ["m-worker-0"]
