"""GET /api/pools: what an autoscaler and a person ask of a pool. Real API, real Redis."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families

from emp_orch.api.views.pool_detail import PoolDetail
from emp_orch.api.views.pools import PoolView
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, PoolName
from emp_orch.fleet.model.observed import MachineStatus
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.fleet.pools.retired import read_with_members
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.redis.client import time_ms
from support.fleet.pools import pool as pool_of
from support.http.stack import FLEET, Producer, fleet_of

RENDERS, VIDEOS = PoolName("renders"), PoolName("videos")
SAID = PoolStatus(
    provider="join",
    least=0,
    most=40,
    wanted=12,
    there=4,
    ready=1,
    why="12 jobs wait, 1 a GPU: 12 wanted, 4 there",
    coming="; up to 20 in 9 s",
    waiting=12,
    running=1,
)


def _fleet() -> Fleet:
    plain = fleet_of("here")
    template = structs.replace(plain.machines[0], id=MachineId(""), runtime=RuntimeKind.EXTERNAL, num_gpus=1)
    made = {n: pool_of(n, template=template, provider="join") for n in (RENDERS, VIDEOS)}
    return structs.replace(plain, pools=made)


async def _member(producer: Producer, suffix: str, state: MemberState = MemberState.IN, **more: Any) -> Member:
    now_ms = await time_ms(producer.redis)
    joined_ms = 0 if state is MemberState.EXPECTED else now_ms
    member = Member(
        id=MachineId(f"renders-{suffix}"), pool=RENDERS, state=state, born_ms=now_ms, joined_ms=joined_ms, **more
    )
    members = Members(producer.redis, producer.keys, FLEET, lambda: producer.seal)
    assert await members.add(member, most=40)
    return member


async def _get(api: aiohttp.ClientSession, path: str, status: int = 200) -> dict[str, Any]:
    async with api.get(path) as response:
        found: dict[str, Any] = await response.json()
        assert response.status == status, found
        return found


async def test_a_pool_with_what_each_member_is_at(api: aiohttp.ClientSession, producer: Producer) -> None:
    fleet = _fleet()
    await producer.apply(fleet)
    members = [
        await _member(producer, "a"),
        await _member(producer, "b", name="pod-b"),
        await _member(producer, "c", MemberState.EXPECTED, why="12 jobs wait"),
        await _member(producer, "d"),
        await _member(producer, "e", leaving_ms=await time_ms(producer.redis), why="idle for 5 min"),
        await _member(producer, "f", MemberState.LEFT),
    ]
    lived = with_members(fleet, members)
    await producer.machine(lived, "renders-a")
    await producer.machine(lived, "renders-b", status=MachineStatus.STARTING)
    await producer.machine(lived, "renders-d")
    await producer.silence("renders-d", 60_000)
    await producer.status(pools={RENDERS: SAID})

    said = await _get(api, "/api/pools/renders")
    # The number that an autoscaler takes, by the path that docs/pools-kubernetes.md names.
    assert said["data"]["wanted"] == 12
    assert said["as_of"].endswith("Z")
    pool = msgspec.convert(said["data"], PoolDetail)
    assert (pool.least, pool.most, pool.there, pool.ready, pool.waiting, pool.running) == (0, 40, 4, 1, 12, 1)
    assert (pool.why, pool.coming) == (SAID.why, SAID.coming)
    assert {m.id: m.at for m in pool.members} == {
        "renders-a": "ready",
        "renders-b": "starting",
        "renders-c": "expected",
        "renders-d": "silent",
        "renders-e": "leaving",
        "renders-f": "left",
    }
    assert pool.counts == dict.fromkeys(("ready", "starting", "expected", "leaving", "silent", "left"), 1)
    assert [(m.name, m.why, m.joined is None) for m in pool.members[1:3]] == [
        ("pod-b", "", False),
        ("", "12 jobs wait", True),
    ]


async def test_a_member_of_a_pool_that_is_no_more_is_a_machine_of_the_fleet_until_it_went(
    api: aiohttp.ClientSession, producer: Producer
) -> None:
    fleet = _fleet()
    of_swarm = {RENDERS: structs.replace(fleet.pools[RENDERS], provider="swarm")}
    await producer.apply(structs.replace(fleet, pools=of_swarm))
    member = await _member(producer, "a", leaving_ms=await time_ms(producer.redis), why="its pool is no more")
    await producer.apply(structs.replace(fleet, pools={}))
    await producer.machine(with_members(structs.replace(fleet, pools=of_swarm), [member]), "renders-a")
    state = (await _get(api, "/api/monitor/state"))["data"]
    (machine,) = (m for m in state["machines"] if m["machine_id"] == "renders-a")
    assert machine["desired"]
    assert {m["id"] for m in state["fleet"]["machines"]} == {"here", "renders-a"}
    assert state["pools"] == []  # emp.yaml has none, and no leader has looked
    await producer.status(pools={RENDERS: structs.replace(SAID, least=0, most=0, wanted=0)})
    state = (await _get(api, "/api/monitor/state"))["data"]
    assert [(p["name"], p["origin"], p["most"]) for p in state["pools"]] == [("renders", "", 0)]
    assert [m["id"] for m in state["members"]] == ["renders-a"]
    async with api.post("/api/pools/renders/scale", json={"size": 0}) as answer:
        assert answer.status == 404  # nobody sizes it any more
    found = await read_with_members(producer.redis, producer.keys, FLEET, producer.seal)
    assert found is not None and {m.id for m in found.fleet.machines} == {"here", "renders-a"}


async def test_all_pools_and_one_that_no_leader_has_looked_at(api: aiohttp.ClientSession, producer: Producer) -> None:
    await producer.apply(_fleet())
    said = await _get(api, "/api/pools")
    assert said["as_of"] is None
    pools = msgspec.convert(said["data"], list[PoolView])
    assert [(p.name, p.wanted, p.least, p.most) for p in pools] == [("renders", None, 0, 40), ("videos", None, 0, 40)]
    await producer.status(pools={RENDERS: SAID})
    pools = msgspec.convert((await _get(api, "/api/pools"))["data"], list[PoolView])
    assert [(p.name, p.wanted) for p in pools] == [("renders", 12), ("videos", None)]
    one = msgspec.convert((await _get(api, "/api/pools/videos"))["data"], PoolDetail)
    assert (one.wanted, one.members, one.counts) == (None, (), {})


async def test_a_scrape_has_the_figures_of_each_pool_that_a_leader_has_looked_at(
    api: aiohttp.ClientSession, producer: Producer
) -> None:
    async def figures() -> dict[tuple[str, str], float]:
        async with api.get("/metrics") as response:
            text = await response.text()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return {(s.name, s.labels["pool"]): s.value for s in samples if s.name.startswith("emp_pool_")}

    await producer.apply(_fleet())
    assert await figures() == {}
    await producer.status(pools={RENDERS: SAID, VIDEOS: structs.replace(SAID, wanted=0, there=0, ready=0, waiting=0)})
    assert await figures() == {
        ("emp_pool_size", "renders"): 4,
        ("emp_pool_ready", "renders"): 1,
        ("emp_pool_wanted", "renders"): 12,
        ("emp_pool_backlog", "renders"): 12,
        ("emp_pool_running", "renders"): 1,
        ("emp_pool_size", "videos"): 0,
        ("emp_pool_ready", "videos"): 0,
        ("emp_pool_wanted", "videos"): 0,
        ("emp_pool_backlog", "videos"): 0,
        ("emp_pool_running", "videos"): 1,
    }


async def test_a_pool_that_is_not_there(api: aiohttp.ClientSession, producer: Producer) -> None:
    assert "no pool renders" in (await _get(api, "/api/pools/renders", 404))["error"]
    assert (await _get(api, "/api/pools"))["data"] == []
    await producer.apply(_fleet())
    assert "renders, videos" in (await _get(api, "/api/pools/none", 404))["error"]
    assert "name" in (await _get(api, "/api/pools/%00", 400))["error"]
