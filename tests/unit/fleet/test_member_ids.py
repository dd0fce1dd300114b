"""What members are called: by a name, by a folder."""

from __future__ import annotations

from itertools import islice

import pytest

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.member_ids import MAX_MEMBER_ID, id_of_name, ids_of_box

RENDERS = PoolName("renders")


def test_a_name_makes_the_same_id_each_time_and_another_in_another_pool() -> None:
    found = id_of_name(RENDERS, "pod/3")
    assert found == id_of_name(RENDERS, "pod/3")
    assert len(found) == len("renders-") + 8
    assert found.removeprefix("renders-") != id_of_name(PoolName("other"), "pod/3").removeprefix("other-")


@pytest.mark.parametrize("name", ["renders-7f3k", "renders-0", "renders-a-b"])
def test_a_name_that_is_an_id_of_the_pool_is_that_id(name: str) -> None:
    assert id_of_name(RENDERS, name) == name


@pytest.mark.parametrize(
    "name", ["renders-", "renders-A", "renders--a", "render-1", f"renders-{'a' * MAX_MEMBER_ID}", "renders-a_"]
)
def test_any_other_name_is_no_id(name: str) -> None:
    assert id_of_name(RENDERS, name) != name
    assert len(id_of_name(RENDERS, name)) <= MAX_MEMBER_ID


def test_a_folder_has_a_short_id_and_longer_ones_that_begin_with_it() -> None:
    short, longer = islice(ids_of_box(RENDERS, "a" * 32), 2)
    assert (len(short), len(longer)) == (len("renders-7f3k"), len("renders-7f3kx"))
    assert longer.startswith(short)
    assert len({next(ids_of_box(RENDERS, f"{n:032x}")) for n in range(1_000)}) > 990
