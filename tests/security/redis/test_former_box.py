"""A box whose member is another box now: its token opens nothing, wherever it is shown. Real API, real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import MemberState
from emp_orch.fleet.model.member_ids import id_of_name
from emp_orch.runtimes.keys.join_tokens import JoinTokens
from emp_orch.store.acl.joining import GATE_PATH
from emp_orch.store.acl.users import grant, granted
from support.http.gate import POOL, GateLab, gate_lab
from support.http.stack import FLEET, Stack, eventually

A, B = "a" * 32, "b" * 32
NAME = "x"
MEMBER = id_of_name(POOL, NAME)
TAKEN = f"{MEMBER} is another box now: this token lets nobody join any more"


class Doors:
    """All that a member's token opens."""

    def __init__(self, lab: GateLab) -> None:
        self.lab = lab
        self.pool_token = JoinTokens(lab.stack.layout).pool_token(FLEET, POOL, expires_s=None)

    async def asked(self, token: str, what: str, **body: str) -> tuple[int, Any]:
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
            http.post(f"{self.lab.stack.api}/api/{what}", json=body) as answer,
        ):
            said = await answer.json()
            return answer.status, said.get("data", said.get("error"))

    async def joins(self, box: str, token: str = "") -> tuple[int, Any]:
        return await self.asked(token or self.pool_token, f"pools/{POOL}/join", box=box, name=NAME)

    async def joined(self, box: str, token: str = "") -> str:
        """Its token."""
        status, said = await self.joins(box, token)
        assert status == 200 and said["machine_id"] == MEMBER, said
        return str(said["token"])

    async def leaves(self, token: str) -> int:
        return (await self.asked(token, f"pools/{POOL}/leave"))[0]

    async def opened_by(self, token: str) -> set[str]:
        """Which doors it opens, but that to join."""
        api, found = self.lab.stack.api, set[str]()
        if (await self.asked(token, "work"))[0] == 200:
            found.add("work")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
            async with http.get(f"{api}/packages/{'0' * 64}") as answer:
                if answer.status == 404:
                    found.add("packages")
            try:
                await (await http.ws_connect(f"{api}{GATE_PATH}")).close()
                found.add("gate")
            except aiohttp.WSServerHandshakeError as e:
                assert e.status == 403
        return found


ALL = {"work", "packages", "gate"}


@pytest.fixture
async def doors(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[Doors]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield Doors(lab)


async def test_the_token_of_a_box_whose_name_another_took_opens_nothing(doors: Doors) -> None:
    first = await doors.joined(A)
    assert await doors.opened_by(first) == ALL
    assert await doors.leaves(first) == 200
    second = await doors.joined(B)
    assert second != first

    async def shut() -> bool:
        return not await doors.opened_by(first)

    await eventually(shut, "the former box's token opens nothing")
    assert await doors.opened_by(second) == ALL
    assert await doors.joins(A, first) == (403, TAKEN)
    assert await doors.leaves(first) == 403
    assert (await doors.joins(A))[0] == 409  # the second lives
    # The second goes on, by its token and by its name.
    assert await doors.joined(B, second) == await doors.joined(B) == second
    member = await doors.lab.members.get(MEMBER)
    assert member is not None and member.box == B and member.state is MemberState.IN


async def test_the_socket_of_a_box_whose_name_another_took_ends(doors: Doors) -> None:
    first = await doors.joined(A)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {first}"}) as http:
        ws = await http.ws_connect(f"{doors.lab.stack.api}{GATE_PATH}")
        assert await doors.leaves(first) == 200
        await doors.joined(B)
        async with asyncio.timeout(30):
            assert (await ws.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_who_comes_back_after_another_is_the_member_by_a_token_that_is_new(doors: Doors) -> None:
    first = await doors.joined(A)
    assert await doors.leaves(first) == 200
    second = await doors.joined(B)
    assert await doors.leaves(second) == 200
    third = await doors.joined(A)
    assert len({first, second, third}) == 3 and await doors.joined(A, third) == third
    assert await doors.joins(A, first) == await doors.joins(B, second) == (403, TAKEN)


async def test_a_box_that_says_not_which_it_is_is_nobody(doors: Doors) -> None:
    """Else whoever has the pool's token were any member, beside the box that is it and lives."""
    await doors.joined(A)
    status, said = await doors.joins("")
    assert status == 400 and said.startswith("box: needed")


async def test_members_and_tokens_of_an_older_emp_go_on(doors: Doors) -> None:
    member = await doors.lab.join(MEMBER)
    token = doors.lab.token(MEMBER)
    assert await doors.opened_by(token) == ALL
    assert await doors.joined(A, token) == token  # it was not known which box it is
    assert (await doors.lab.members.get(MEMBER)) == structs.replace(member, box=A, name=NAME)


async def test_a_login_that_an_older_emp_gave_goes_with_the_box(doors: Doors) -> None:
    first = await doors.joined(A)
    assert await grant(doors.lab.r, doors.lab.keys, FLEET, MEMBER, "pw")
    assert await doors.leaves(first) == 200
    await doors.joined(B)
    assert await granted(doors.lab.r, doors.lab.keys, FLEET) == frozenset()
