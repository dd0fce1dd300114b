"""The last day of pools in a real Redis: one leader writes it, and who reads believes nothing that does not fit."""

from __future__ import annotations

import json

import pytest

from emp_orch.control.pools.past import Past
from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.pools.course import MAX_POINTS, Point
from emp_orch.store.fleet.leader import NotLeader
from emp_orch.store.fleet.pools.courses import read_courses, write_courses
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.http.stack import FLEET, Producer

RENDERS = PoolName("renders")
GOOD = [[1_000, 1, 2, 3, 4], [2_000, 0, 0, 0, 0]]


def said(waiting: int) -> PoolStatus:
    return PoolStatus(provider="command", least=0, most=9, wanted=2, there=1, waiting=waiting, running=3)


async def test_a_leader_goes_on_with_what_another_kept(r: Client) -> None:
    keys, producer = Keys(), Producer(r, Keys())
    first = await producer.mandate("first")
    past = Past(r, keys, FLEET)
    assert await past.note({}, 1_000, first) == 0 and not await r.exists(keys.pool_courses(FLEET))
    assert await past.note({RENDERS: said(1)}, 10_000, first) == 10_000
    assert await past.note({RENDERS: said(2)}, 15_000, first) == 10_000  # too soon after it
    await r.delete(keys.leader(FLEET))
    second = await producer.mandate("second")
    assert await Past(r, keys, FLEET).note({RENDERS: said(2)}, 20_000, second) == 20_000
    found = await read_courses(r, keys, FLEET)
    assert found == {RENDERS: (Point(10_000, 1, 3, 1, 2), Point(20_000, 2, 3, 1, 2))}
    with pytest.raises(NotLeader):
        await past.note({RENDERS: said(5)}, 60_000, first)
    assert await read_courses(r, keys, FLEET) == found
    assert await Past(r, keys, FLEET).note({}, 70_000, second) == 70_000
    assert await read_courses(r, keys, FLEET) == {}


@pytest.mark.parametrize(
    "course",
    [
        [[2_000, 0, 0, 0, 0], [1_000, 0, 0, 0, 0]],
        [[n, 0, 0, 0, 0] for n in range(MAX_POINTS + 1)],
    ],
)
async def test_a_course_that_is_none_is_left_out(r: Client, course: list[list[int]]) -> None:
    keys = Keys()
    await r.set(keys.pool_courses(FLEET), json.dumps({"bad": course, "good": GOOD}))
    assert list(await read_courses(r, keys, FLEET)) == ["good"]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"renders": [[-1, 0, 0, 0, 0]]}),
        json.dumps({"renders": [[1, 10**12, 0, 0, 0]]}),
        json.dumps({"renders": [[1, 0, 0]]}),
        json.dumps({"renders": [[10**18, 0, 0, 0, 0]]}),
    ],
)
async def test_what_nobody_of_emp_wrote_is_nothing_and_is_written_anew(r: Client, text: str) -> None:
    keys, producer = Keys(), Producer(r, Keys())
    await r.set(keys.pool_courses(FLEET), text)
    assert await read_courses(r, keys, FLEET) == {}
    await write_courses(r, keys, await producer.mandate(), {RENDERS: (Point(1, 0, 0, 0, 0),)})
    assert list(await read_courses(r, keys, FLEET)) == [RENDERS]


async def test_a_key_of_another_type_is_nothing_too(r: Client) -> None:
    keys = Keys()
    await r.hset(keys.pool_courses(FLEET), "a", "b")
    assert await read_courses(r, keys, FLEET) == {}
