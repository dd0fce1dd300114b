"""Boxes that join a pool over HTTP: who gets in, as whom, and who does not. Real API, real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from bench.joins.rush import rush
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState, Pool, PoolName
from emp_orch.fleet.model.member_ids import id_of_name, ids_of_box
from emp_orch.fleet.model.observed import MachineReport, MachineStatus
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.machine.boot.join import Invitation, Membership, pooled_of
from emp_orch.machine.home.folder import MachineFolder
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.acl.users import granted
from emp_orch.store.fleet import journal
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.redis.client import time_ms
from emp_orch.store.reports.reports import machine_writer
from support.fleet.pools import pool as pool_of
from support.http.stack import FLEET, Producer, Stack, fleet_of

RENDERS = PoolName("renders")
A, B, C = ("a" * 32, "b" * 32, "c" * 32)


class Lab:
    """A fleet with a pool of five at most, and what its boxes say."""

    def __init__(self, stack: Stack, producer: Producer, session: aiohttp.ClientSession) -> None:
        self.producer, self.session, self.api = producer, session, stack.settings.api.url
        self.tokens = JoinTokens(stack.layout)
        self.token = self.tokens.pool_token(FLEET, RENDERS, expires_s=None)
        self.members = Members(producer.redis, producer.keys, FLEET, lambda: producer.seal)

    async def apply(self, most: int = 5, stale_after_s: float = 10.0) -> None:
        fleet = fleet_of("here")
        fleet = structs.replace(fleet, reconcile=structs.replace(fleet.reconcile, stale_after_s=stale_after_s))
        template = structs.replace(fleet.machines[0], id=MachineId(""), runtime=RuntimeKind.EXTERNAL)
        made: Pool = pool_of("renders", most=most, template=template, provider="join")
        await self.producer.apply(structs.replace(fleet, pools={RENDERS: made}))

    async def ask(self, token: str, box: str = "", name: str = "", pool: str = RENDERS, to: str = "join") -> Any:
        """The status, and the answer or the error."""
        body = {"box": box, "host": "gpu-1", "name": name} if to == "join" else {"why": "SIGTERM", "returned": 2}
        headers = {"Authorization": f"Bearer {token}"}
        async with self.session.post(f"/api/pools/{pool}/{to}", json=body, headers=headers) as said:
            found = await said.json()
            return said.status, found["data"] if said.status == 200 else found["error"]

    async def joined(self, **asking: str) -> dict[str, Any]:
        status, said = await self.ask(asking.pop("token", self.token), **asking)
        assert status == 200, said
        assert isinstance(said, dict)
        return said

    async def users(self) -> set[str]:
        """The members that have a login at Redis."""
        return set(await granted(self.producer.redis, self.producer.keys, FLEET) or ())

    async def heard(self, member_id: str, box: str) -> None:
        """The member reports, from `box`."""
        report = MachineReport(
            machine_id=MachineId(member_id),
            status=MachineStatus.READY,
            box=box,
            host="gpu-1",
            agent_version="1",
            started_ms=await time_ms(self.producer.redis),
            boot_id="boot-1",
            generation=1,
            config_hash="",
            num_gpus=1,
            programs={},
        )
        await machine_writer(self.producer.redis, self.producer.keys, member_id).write(report)


@pytest.fixture
async def lab(http_stack: Stack, producer: Producer, api: aiohttp.ClientSession) -> AsyncIterator[Lab]:
    made = Lab(http_stack, producer, api)
    await made.apply()
    yield made


async def test_two_boxes_with_one_token_are_two_members(lab: Lab) -> None:
    first, second = await lab.joined(box=A), await lab.joined(box=B)
    assert first["machine_id"] != second["machine_id"]
    for said in (first, second):
        member = await lab.members.get(said["machine_id"])
        assert member is not None and member.state is MemberState.IN and member.joined_ms == member.born_ms > 0
        assert said["machine_id"].startswith("renders-") and len(said["machine_id"]) == len("renders-7f3k")
        assert said["config"]["machine"]["id"] == said["orders"]["machine"] == said["machine_id"]
        # A stranger's box has no login at Redis, and no key of the store (ADR 0046).
        assert (said["gate"], said["redis_url"], said["artifacts_url"]) == ("/api/gate", "", "")
    assert len({(said["token"], said["orders"]["key"]) for said in (first, second)}) == 2
    assert await lab.users() == set()


async def test_who_comes_back_is_the_same_member(lab: Lab) -> None:
    named, nameless = await lab.joined(box=A, name="pod-3"), await lab.joined(box=B)
    assert named["machine_id"] == id_of_name(RENDERS, "pod-3")
    again = [
        await lab.joined(box=A, name="pod-3"),
        await lab.joined(box=A, token=named["token"]),
        await lab.joined(box=A, name=named["machine_id"]),
        await lab.joined(box=B),
        await lab.joined(box=B, token=nameless["token"]),
        await lab.joined(box=B, name=nameless["machine_id"]),
    ]
    assert [said["machine_id"] for said in again] == [named["machine_id"]] * 3 + [nameless["machine_id"]] * 3
    assert [said["token"] for said in again] == [named["token"]] * 3 + [nameless["token"]] * 3
    assert (await lab.members.counts())[RENDERS] == 2
    member = await lab.members.get(named["machine_id"])
    assert member is not None and member.name == "pod-3"


async def test_of_two_living_boxes_of_one_name_the_second_is_told_where_the_first_is(lab: Lab) -> None:
    first = await lab.joined(box=A, name="pod-3")
    status, said = await lab.ask(lab.token, box=B, name="pod-3")
    assert status == 409 and "is joined by another box: gpu-1, let in 0 s ago; stop that one, or give each" in said
    await lab.heard(first["machine_id"], A)
    status, said = await lab.ask(lab.token, box=B, name="pod-3")
    assert status == 409 and "boot boot-1" in said and "(--as)" in said
    await lab.producer.silence(first["machine_id"], 60_000)


async def test_a_pool_takes_no_more_than_it_may_have(lab: Lab) -> None:
    few = lab.tokens.pool_token(FLEET, RENDERS, expires_s=None, most=2)
    for name in ("one", "two"):
        await lab.joined(token=few, box=A, name=name)
    assert await lab.ask(few, box=C, name="three") == (
        409,
        "pool renders is full: 2 members at most, as this token has it (--max)",
    )
    await lab.joined(token=few, box=A, name="one")
    for name in ("three", "four", "five"):
        await lab.joined(box=A, name=name)
    assert await lab.ask(lab.token, box=A, name="six") == (
        409,
        "pool renders is full: 5 members at most, as emp.yaml has it",
    )
    await lab.joined(box=A, name="five")
    assert (await lab.members.counts())[RENDERS] == 5


async def test_who_left_gives_its_place_to_who_comes(lab: Lab) -> None:
    await lab.apply(most=1)
    first = await lab.joined(box=A)
    assert (await lab.ask(lab.token, box=B))[0] == 409
    assert await lab.ask(first["token"], to="leave") == (200, {"machine_id": first["machine_id"]})
    second = await lab.joined(box=B)
    assert await lab.members.get(first["machine_id"]) is None
    assert await lab.members.get(second["machine_id"]) is not None


async def test_who_leaves_is_told_of_and_may_come_back(lab: Lab) -> None:
    said = await lab.joined(box=A)
    for _ in range(2):
        assert (await lab.ask(said["token"], to="leave"))[0] == 200
    member = await lab.members.get(said["machine_id"])
    assert member is not None and (member.state, member.why) == (MemberState.LEFT, "SIGTERM")
    told = [e for e in await journal.recent(lab.producer.redis, lab.producer.keys, FLEET, 50) if e.type == "preempted"]
    about = {"machine_id": said["machine_id"], "pool": "renders", "why": "SIGTERM", "returned": 2}
    assert [{k: v for k, v in e.data.items() if k != "type"} for e in told] == [about]
    assert "preempted" in [e.type for e in await lab.producer.events.recent(50)]
    assert (await lab.joined(box=A))["machine_id"] == said["machine_id"]
    member = await lab.members.get(said["machine_id"])
    assert member is not None and (member.state, member.why) == (MemberState.IN, "")


async def test_who_left_is_let_in_from_another_box_at_once(lab: Lab) -> None:
    """As when its engine starts it again elsewhere, in a folder that is new."""
    asked = Member(id=MachineId("renders-x1"), pool=RENDERS, state=MemberState.EXPECTED, born_ms=1)
    assert await lab.members.add(asked, most=5)
    token = lab.tokens.pool_token(FLEET, RENDERS, expires_s=None, member_id="renders-x1")
    said = await lab.joined(token=token, box=A)
    status, words = await lab.ask(token, box=B)
    assert status == 429 and words.startswith("renders-x1 was another box until lately: gpu-1, let in 0 s ago; it is")
    assert (await lab.ask(said["token"], to="leave"))[0] == 200
    assert (await lab.joined(token=token, box=B))["machine_id"] == "renders-x1"
    assert (await lab.ask(token, box=C))[0] == 429


async def test_a_box_of_an_engine_waits_until_the_one_before_counts_as_gone(lab: Lab, tmp_path: Path) -> None:
    """Its engine killed that before it could say a word, and started the next at once."""
    await lab.apply(stale_after_s=3.0)
    asked = Member(id=MachineId("renders-x1"), pool=RENDERS, state=MemberState.EXPECTED, born_ms=1)
    assert await lab.members.add(asked, most=5)
    token = lab.tokens.pool_token(FLEET, RENDERS, expires_s=None, member_id="renders-x1")
    await lab.joined(token=token, box=A)
    box = Membership(MachineFolder(tmp_path), "", Invitation(api=lab.api, token=token), pooled_of(RENDERS, ""))
    assert await box.member_id() == "renders-x1"


async def test_the_journal_tells_who_came_and_how(lab: Lab) -> None:
    said = await lab.joined(box=A, name="vast-1")
    await lab.joined(box=A, name="vast-1")  # it only starts anew
    assert (await lab.ask(said["token"], to="leave"))[0] == 200
    await lab.joined(box=A, name="vast-1")
    now = await time_ms(lab.producer.redis)
    asked = Member(id=MachineId("renders-x1"), pool=RENDERS, state=MemberState.EXPECTED, born_ms=now)
    assert await lab.members.add(asked, most=5)
    own = lab.tokens.pool_token(FLEET, RENDERS, expires_s=None, member_id="renders-x1")
    await lab.joined(token=own, box=B)
    async with lab.session.get("/api/journal?pool=renders&type=member_joined,preempted") as answer:
        entries = (await answer.json())["data"]
    assert [(e["type"], e["data"]["machine_id"], e["data"].get("how")) for e in entries] == [
        ("member_joined", said["machine_id"], "new"),
        ("preempted", said["machine_id"], None),
        ("member_joined", said["machine_id"], "came back"),
        ("member_joined", "renders-x1", "asked for"),
    ]
    events = await lab.producer.events.recent(100)
    told = [
        (e.type, e.data.get("state", e.data.get("how"))) for e in events if e.type in ("pool_changed", "member_joined")
    ]
    assert told == [
        ("member_joined", "new"),
        ("pool_changed", "left"),
        ("member_joined", "came back"),
        ("pool_changed", "expected"),
        ("member_joined", "asked for"),
    ]
    async with lab.session.get("/api/journal?pool=beside") as answer:
        assert (await answer.json())["data"] == []


async def test_a_pool_is_held_at_a_size_and_let_go(lab: Lab) -> None:
    async def scale(size: object, pool: str = "renders") -> tuple[int, Any]:
        body = {"size": size, "reason": "a demo", "by": "me"}
        async with lab.session.post(f"/api/pools/{pool}/scale", json=body) as said:
            found = await said.json()
            return said.status, found["data"] if said.status == 200 else found["error"]

    assert await scale(3) == (200, {"pool": "renders", "size": 3, "reason": "a demo", "stood": True})
    (order,) = await read_overrides(lab.producer.redis, lab.producer.keys, FLEET, lab.producer.seal)
    assert (order.key, order.size, order.words) == ("scale:renders", 3, "a demo (by me)")
    status, words = await scale(6)
    assert status == 400 and "at most 5 members, not 6" in words
    assert (await scale(1, "nobody"))[0] == 404
    assert (await scale("3"))[0] == 400
    assert (await scale(None))[1]["stood"] is True
    assert (await scale(None))[1]["stood"] is False
    assert await read_overrides(lab.producer.redis, lab.producer.keys, FLEET, lab.producer.seal) == ()


async def test_whom_emp_lets_go_was_not_preempted(lab: Lab) -> None:
    said = await lab.joined(box=A)
    member = await lab.members.get(said["machine_id"])
    assert member is not None and await lab.members.change(member, leaving_ms=1, why="nothing waits")
    assert (await lab.ask(said["token"], to="leave"))[0] == 200
    entries = await journal.recent(lab.producer.redis, lab.producer.keys, FLEET, 50)
    assert [e.type for e in entries] == ["member_joined"]


async def test_a_token_for_one_member_makes_it_and_no_other(lab: Lab) -> None:
    token = lab.tokens.pool_token(FLEET, RENDERS, expires_s=None, member_id="renders-x1")
    now = await time_ms(lab.producer.redis)
    asked = Member(id=MachineId("renders-x1"), pool=RENDERS, state=MemberState.EXPECTED, born_ms=now - 5)
    assert await lab.members.add(asked, most=5)
    assert (await lab.joined(token=token, box=A, name="another"))["machine_id"] == "renders-x1"
    member = await lab.members.get("renders-x1")
    assert member is not None and (member.state, member.born_ms) == (MemberState.IN, now - 5) and member.joined_ms
    assert await lab.members.remove(member)
    assert (await lab.ask(token, box=A))[0] == 403  # a box that its engine starts again is nobody's


async def test_what_opens_nothing(lab: Lab) -> None:
    machine = lab.tokens.issue(FLEET, "here", expires_s=None)
    expired = lab.tokens.pool_token(FLEET, RENDERS, expires_s=int(time.time()) - 1)
    foreign = lab.tokens.pool_token("another", RENDERS, expires_s=None)
    beside = lab.tokens.pool_token(FLEET, "beside", expires_s=None)
    forged = lab.token[:-2] + ("AA" if not lab.token.endswith("AA") else "BB")
    for token in (machine, expired, foreign, beside, forged, "", "emp1.x.y"):
        assert await lab.ask(token, box=A) == (403, "this token does not let anybody join this pool"), token
        assert (await lab.ask(token, to="leave"))[0] == 403
    assert (await lab.ask(lab.token, to="leave")) == (403, "this token is no member's of this pool")
    assert (await lab.ask(beside, box=A, pool="beside")) == (404, "the fleet has no pool beside now")
    assert (await lab.members.read()).members == ()


async def test_a_revoked_token_lets_nobody_in_and_members_stay(lab: Lab) -> None:
    said = await lab.joined(box=A)
    lab.tokens.revoke_pool(RENDERS)
    assert (await lab.ask(lab.token, box=B))[0] == 403
    assert (await lab.joined(token=said["token"], box=A))["machine_id"] == said["machine_id"]


async def test_a_forgotten_members_token_is_void_everywhere(lab: Lab) -> None:
    said = await lab.joined(box=A)
    bearer = {"Authorization": f"Bearer {said['token']}"}

    async def status(path: str, method: str) -> int:
        async with lab.session.request(method, path, headers=bearer) as answer:
            return answer.status

    digest = "0" * 64
    assert (await status("/api/work", "POST"), await status(f"/packages/{digest}", "GET")) == (200, 404)
    member = await lab.members.get(said["machine_id"])
    assert member is not None and await lab.members.remove(member)
    end = time.monotonic() + 20
    while (await status("/api/work", "POST"), await status(f"/packages/{digest}", "GET")) != (403, 403):
        assert time.monotonic() < end  # what was known of it is good for two seconds
    status_, why = await lab.ask(said["token"], box=A)
    assert (status_, why) == (403, f"{said['machine_id']} was forgotten: its token lets nobody join any more")
    born_again = await lab.joined(box=A)
    assert born_again["machine_id"] == said["machine_id"] and born_again["token"] != said["token"]
    assert (await lab.ask(said["token"], box=A))[0] == 403


@pytest.mark.parametrize("name", ["a b", "x" * 129, "ä", "-x", "a\nb"])
async def test_a_name_that_is_none_is_refused(lab: Lab, name: str) -> None:
    status, said = await lab.ask(lab.token, box=A, name=name)
    assert status == 400 and "name" in said


async def test_a_machine_of_emp_yaml_is_no_member(lab: Lab) -> None:
    fleet = fleet_of("renders-1")
    template = structs.replace(fleet.machines[0], id=MachineId(""), runtime=RuntimeKind.EXTERNAL)
    await lab.producer.apply(structs.replace(fleet, pools={RENDERS: pool_of("renders", template=template)}))
    status, said = await lab.ask(lab.token, box=A, name="renders-1")
    assert (status, said) == (409, "renders-1 is a machine of emp.yaml; go by another name (--as)")


def _of_one_short_id() -> tuple[str, str]:
    """Two folders whose shortest id is the same."""
    known: dict[str, str] = {}
    for number in range(100_000):
        box = f"{number:032x}"
        if other := known.setdefault(next(ids_of_box(RENDERS, box)), ""):
            return other, box
        known[next(ids_of_box(RENDERS, box))] = box
    raise AssertionError("no two are alike")


async def test_two_folders_of_one_short_id_that_come_at_once_are_two_members(lab: Lab) -> None:
    one, two = _of_one_short_id()
    said = await asyncio.gather(*(lab.joined(box=box) for box in (one, two, one, two)))
    ids = [s["machine_id"] for s in said]
    assert ids[:2] == ids[2:] and sorted(map(len, ids[:2])) == [len("renders-7f3k"), len("renders-7f3kx")]
    assert (await lab.members.counts())[RENDERS] == 2


async def test_many_at_once_get_in_while_strangers_guess(lab: Lab) -> None:
    """A part of `python -m bench.joins`: 500 in 10 s."""
    await lab.apply(most=300)
    found = await rush(str(lab.session._base_url).rstrip("/"), RENDERS, lab.token, boxes=250, within_s=2.5)
    assert found.members == found.statuses[200] == 250
    assert found.guesses[429] > 10 * found.guesses[403]
    assert (await lab.members.counts())[RENDERS] == 250
    assert await lab.users() == set()
