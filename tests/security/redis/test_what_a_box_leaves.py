"""How much of Redis one box can take up: answers that it does not read, and what it leaves by names of its choice."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import hiredis
import pytest

from emp_orch.api.gate.budgets import COSTLY, MOST_CLASSES, OFFERED_KIB, SENT_KIB, Budgets, Names
from emp_orch.api.gate.line import MOST_ASKED, Line
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.matching.offers import Offers, digest_of, encoded
from emp_orch.store.queue.offers import OFFERS_KEPT_S, packed
from emp_orch.store.reports.sizes import MAX_REPORT_BYTES
from support.http.gate import MINE, OTHER, GateLab, gate_lab
from support.http.raw_gate import CLASS, TOKEN, raw, script
from support.http.stack import Stack, eventually

KIB = 1_024


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


async def test_redis_keeps_few_answers_for_who_takes_none(lab: GateLab) -> None:
    await lab.r.hset(lab.keys.machines, MINE, "x" * MAX_REPORT_BYTES)
    first, never = asyncio.Event(), asyncio.Event()

    async def tell(data: bytes) -> None:
        first.set()
        await never.wait()

    line = Line(lab.r, tell)
    await line.connect()
    words = (b"HGET", lab.keys.machines.encode(), MINE.encode())

    async def ask() -> None:
        for _ in range(2_000):
            await line.ask(words)

    tasks = [asyncio.create_task(line.pump()), asyncio.create_task(ask())]
    try:
        await first.wait()

        async def full() -> bool:
            return line._asked == MOST_ASKED

        await eventually(full, "no more is asked")
        kept = max(int(c["omem"]) for c in await lab.r.client_list())
        assert kept <= 16 * MAX_REPORT_BYTES
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await line.aclose()


async def test_one_box_is_of_so_many_classes_and_no_more(lab: GateLab) -> None:
    await lab.queue.submit(parse_submission({"service": "simulation"}))
    (lane,) = map(str, await lab.r.hkeys(lab.keys.lanes))
    async with raw(lab) as box, raw(lab) as again, raw(lab, OTHER) as other:
        said = []
        for number in range(MOST_CLASSES + 5):
            one = again if number % 2 else box
            said.append(await one.ask(*script(lab, "lanes/register", f"{number:016x}", "", "1:1", lane)))
        assert said[:MOST_CLASSES] == [1] * MOST_CLASSES
        assert all(isinstance(one, hiredis.ReplyError) and "more classes" in str(one) for one in said[MOST_CLASSES:])
        assert await lab.r.scard(lab.keys.lane_classes(lane)) == MOST_CLASSES
        # One that it is of, and another box.
        assert await box.ask(*script(lab, "lanes/register", f"{5:016x}", "1:1", "1:1", lane)) == 1
        assert await other.ask(*script(lab, "lanes/register", CLASS, "", "1:1", lane)) == 1


async def test_one_box_has_redis_walk_through_all_held_jobs_so_often_and_no_more(lab: GateLab) -> None:
    async with raw(lab) as box, raw(lab, OTHER) as other:
        said = [await box.ask(*script(lab, "claim/unclaim", TOKEN)) for _ in range(COSTLY)]
        assert said == [0] * COSTLY
        while (said_ := await box.ask(*script(lab, "claim/unclaim", TOKEN))) == 0:
            said.append(said_)
            assert len(said) <= 2 * COSTLY
        assert "more claims than" in str(said_)
        assert await box.ask("PING") == b"PONG" and await other.ask(*script(lab, "claim/unclaim", TOKEN)) == 0


async def test_one_box_leaves_so_many_documents_and_no_more(lab: GateLab) -> None:
    refused, left = 0, 0
    async with raw(lab) as box:
        while not refused:
            text = encoded(Offers(models=frozenset({secrets.token_hex(KIB * 1_100)})))
            digest, stored = digest_of(text), packed(text)
            said = await box.ask("SET", lab.keys.offers(digest), stored, "PX", str(OFFERS_KEPT_S * 1000))
            refused = isinstance(said, hiredis.ReplyError)
            left += 0 if refused else len(stored)
            assert left <= 2 * OFFERED_KIB * KIB
    assert left > OFFERED_KIB * KIB / 2


def test_names_are_counted_for_a_while_and_by_machine() -> None:
    names = Names(2, for_s=10.0, machines=2)
    assert [names.take("a", name, 0.0) for name in (b"1", b"2", b"3", b"1")] == [True, True, False, True]
    assert names.take("b", b"3", 0.0)
    assert names.take("a", b"1", 9.0) and not names.take("a", b"3", 9.0)
    assert names.take("a", b"3", 10.0) and not names.take("a", b"2", 10.0)
    assert names.take("c", b"1", 10.0) and len(names._of) == 2


def test_models_and_documents_have_a_budget_of_their_own() -> None:
    now_s = 0.0
    budgets = Budgets(lambda: now_s)
    assert budgets.offers("a", OFFERED_KIB * KIB) and not budgets.offers("a", KIB) and budgets.offers("b", KIB)
    now_s = 1.0
    assert budgets.offers("a", KIB)
    assert all(budgets.has_model("a", str(n).encode()) for n in range(1_000))
    assert budgets.has_class("a", b"x")
    assert budgets.wait_s("a", SENT_KIB * KIB) == 0 and budgets.wait_s("a", KIB) > 0 == budgets.wait_s("b", KIB)
    now_s = 2.0
    assert budgets.wait_s("a", KIB) == 0 < budgets.wait_s("a", SENT_KIB * KIB) < budgets.wait_s("a", SENT_KIB * KIB)
    assert [budgets.has_costly("a") for _ in range(COSTLY + 1)] == [True] * COSTLY + [False]
