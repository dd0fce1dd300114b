"""For how long a box is at the gate: after its member was forgotten, and while nobody can tell whether it is one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emp_orch.api.app import build_context
from emp_orch.api.context import Context
from emp_orch.api.gate.refusals import Refusals
from emp_orch.api.gate.socket import Gate, _while_it_is
from emp_orch.api.gate.standing import KNOWN_S, LAST_GOOD_S, Standing
from emp_orch.errors import EmpError
from emp_orch.store.redis.client import TRANSIENT
from support.http.gate import MINE, OTHER, GateLab, gate_lab
from support.http.stack import FLEET, Stack, eventually

LONG_S = 60.0


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


@pytest.fixture
async def ctx(lab: GateLab) -> AsyncIterator[Context]:
    made = build_context(lab.stack.settings, lab.stack.layout, lab.r)
    yield made
    await made.line.aclose()


@dataclass
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def forget(lab: GateLab, member_id: str) -> None:
    member = await lab.members.get(member_id)
    assert member is not None and await lab.members.remove(member)


async def damage(lab: GateLab) -> None:
    """The generation in force."""
    number = int(await lab.r.get(lab.keys.generation(FLEET)) or 0)
    await lab.r.set(lab.keys.spec(FLEET, number), "nobody sealed this")


@pytest.mark.parametrize("tenths", range(0, 20, 3))
async def test_no_answer_counts_for_longer_than_is_said_once_the_member_is_forgotten(
    lab: GateLab, ctx: Context, tenths: int
) -> None:
    """However often the token was shown before, and by however many sockets."""
    clock = Clock()
    standing, token, forgotten_s = Standing(ctx, clock), lab.token(MINE), clock.now_s + tenths / 10
    while clock.now_s < forgotten_s:
        assert await standing.of(token) is not None
        clock.now_s += 0.1
    await forget(lab, MINE)
    while (stands := await standing.of(token)) is not None:
        assert clock.now_s < stands.until_s <= forgotten_s + KNOWN_S
        clock.now_s += 0.1
    assert await standing.of(lab.token(OTHER)) is not None


async def test_a_box_that_another_took_the_name_of_is_known_at_once_by_who_asks_anew(
    lab: GateLab, ctx: Context
) -> None:
    clock = Clock()
    standing, member = Standing(ctx, clock), await lab.members.get(MINE)
    assert member is not None and await standing.of(lab.token(MINE)) is not None
    assert await lab.members.change(member, box="b" * 32, life=1)
    clock.now_s += KNOWN_S
    assert await standing.of(lab.token(MINE)) is None
    second = standing._tokens.member_token(FLEET, member.pool, MINE, born_ms=member.born_ms, life=1)
    assert await standing.of(second) is not None


async def test_with_a_damaged_generation_boxes_work_on_and_who_is_forgotten_goes(lab: GateLab) -> None:
    mine, other = await lab.box(MINE), await lab.box(OTHER)
    assert await mine.ping() and await other.ping()
    await damage(lab)
    await forget(lab, OTHER)

    async def is_out() -> bool:
        try:
            return not await other.ping()
        except TRANSIENT:
            return True

    await eventually(is_out, "the one that was forgotten is out")
    assert await mine.ping()
    await mine.connection_pool.disconnect()
    assert await mine.ping()  # it comes anew


async def test_a_generation_that_stays_damaged_is_gone_by_for_a_night(lab: GateLab, ctx: Context) -> None:
    clock = Clock()
    standing, token = Standing(ctx, clock), lab.token(MINE)
    assert await standing.of(token) is not None
    await damage(lab)
    clock.now_s += LAST_GOOD_S - 1
    assert await standing.of(token) is not None
    clock.now_s += 1
    with pytest.raises(EmpError):
        await standing.of(token)


async def test_a_connection_ends_when_nobody_can_tell_whose_it_is(lab: GateLab, ctx: Context) -> None:
    gate, token = Gate(ctx), lab.token(MINE)
    stands = await gate.standing.of(token)
    assert stands is not None
    await lab.r.delete(lab.keys.members_mark(FLEET))
    await lab.r.rpush(lab.keys.members_mark(FLEET), "of another type")
    async with asyncio.timeout(LONG_S):
        await _while_it_is(gate, token, [stands], untold_s=0.1)
    with pytest.raises(TRANSIENT):
        await gate.standing.of(token)


async def test_refusals_remember_so_many_machines_and_no_more(lab: GateLab, ctx: Context) -> None:
    refusals = Refusals(ctx.events, ctx.stats, most=3)
    for number in range(10):
        assert not await refusals.note(f"renders-{number}", "KEYS", "no")
    assert len(refusals) == 3
    shut = [await refusals.note("renders-9", "KEYS", "no") for _ in range(100)]
    assert shut[-1] and refusals.shut_out("renders-9", 0) > 0
    assert refusals.shut_out("renders-0", 0) == 0 and len(refusals) == 3
