"""What a box sends behind a command that waits: it is judged as things stand once that is answered. A raw WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import hiredis
import pytest

from emp_orch.api.gate.line import Line
from emp_orch.jobs.document.states import JobStatus
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.jobs.matching.requirements import Requirements, canonical, signature
from emp_orch.store.acl.stranger_rules import Words
from emp_orch.store.queue.claim import Claimed, Claims
from support.http.gate import MINE, OTHER, GateLab, gate_lab
from support.http.raw_gate import ANSWER_S, CLASS, TOKEN, raw, script
from support.http.stack import Stack, eventually

WORKER = f"{MINE}-worker-0"


@pytest.fixture
async def lab(new_http_stack: Callable[..., Stack], tmp_path: Path) -> AsyncIterator[GateLab]:
    async with gate_lab(new_http_stack, tmp_path) as lab:
        yield lab


def waits(lab: GateLab) -> tuple[Any, ...]:
    """What comes after it waits at Redis, until `let_go`."""
    return ("BLPOP", lab.keys.wake(WORKER), 60)


async def waited_for(lab: GateLab) -> None:
    async def blocked() -> bool:
        return any(c["cmd"] == "blpop" for c in await lab.r.client_list())

    await eventually(blocked, "the box waits")


async def let_go(lab: GateLab) -> None:
    await waited_for(lab)
    await lab.r.rpush(lab.keys.wake(WORKER), "x")


async def claimed(lab: GateLab) -> Claimed:
    await lab.queue.submit(parse_submission({"service": "simulation"}))
    claims = Claims(await lab.box(MINE), lab.keys, WORKER, lease_s=30)
    claim = await claims.claim_or_wait({"services": ["simulation"]})
    assert isinstance(claim, Claimed)
    await claims.aclose()
    return claim


async def test_what_follows_a_give_back_is_judged_after_it(lab: GateLab) -> None:
    claim = await claimed(lab)
    channel = lab.keys.preview_channel(claim.job.id)
    async with lab.r.pubsub() as heard, raw(lab) as box:
        await heard.subscribe(channel)
        assert (await heard.get_message(timeout=ANSWER_S) or {})["type"] == "subscribe"
        await box.send(waits(lab), script(lab, "claim/unclaim", claim.token), ("PUBLISH", channel, "forged"))
        await let_go(lab)
        assert await box.reply() == [lab.keys.wake(WORKER).encode(), b"x"]
        assert await box.reply() == 1 and await box.reply() == 0
        assert (await lab.queue.get(claim.job.id)).status is JobStatus.PENDING
        await lab.r.publish(channel, "the end")
        assert (await heard.get_message(timeout=ANSWER_S) or {})["data"] == "the end"


async def test_what_is_kept_for_later_in_a_transaction_is_a_notice_of_itself_alone(lab: GateLab) -> None:
    """Else it were judged now, and sent when the job is another's."""
    claim = await claimed(lab)
    async with raw(lab) as box:
        assert await box.ask("MULTI") == b"OK"
        said = await box.ask("PUBLISH", lab.keys.preview_channel(claim.job.id), "forged")
        assert isinstance(said, hiredis.ReplyError) and "within a transaction" in str(said)
        assert await box.ask("DISCARD") == b"OK"
        assert await box.ask("PUBLISH", lab.keys.preview_channel(claim.job.id), "a picture") == 0


async def test_a_transaction_holds_few_commands(lab: GateLab) -> None:
    """Redis keeps what is queued, as long as the connection stands."""
    async with raw(lab) as box:
        assert await box.ask("MULTI") == b"OK"
        notice = ("XADD", lab.keys.acks(MINE), "MAXLEN", "~", 1_000, "*", "ack", "x" * 16_000)
        said = [await box.ask(*notice) for _ in range(20)]
        assert said[0] == b"QUEUED" and isinstance(said[-1], hiredis.ReplyError)
        assert sum(one == b"QUEUED" for one in said) <= 16


async def test_a_lane_that_is_made_later_is_not_registered_before(lab: GateLab) -> None:
    """Its name is known beforehand: it is made of what it asks for."""
    text = canonical(Requirements(service="elsewhere"))
    version = b"1:9"
    async with raw(lab) as box:
        await box.send(waits(lab), script(lab, "lanes/register", CLASS, "", version, signature(text)))
        await waited_for(lab)
        sent = await lab.queue.submit(parse_submission({"service": "elsewhere", "payload": {"prompt": "a secret"}}))
        assert await lab.r.hkeys(lab.keys.lanes) == [signature(text)]
        await let_go(lab)
        await box.reply()
        said = await box.reply()
        assert isinstance(said, hiredis.ReplyError) and "does not have" in str(said)
        await box.ask(*script(lab, "claim/next", WORKER, CLASS, TOKEN, 30_000, 20_000, 1, 0))
    assert (await lab.queue.get(sent.job_id)).status is JobStatus.PENDING
    assert await lab.r.exists(lab.keys.lane_classes(signature(text))) == 0


async def test_a_lane_that_was_forgotten_is_registered_as_nothing(lab: GateLab) -> None:
    """A worker may name one that it was told of a moment ago."""
    async with raw(lab) as box:
        gone = signature(canonical(Requirements(service="simulation")))
        assert await box.ask(*script(lab, "lanes/register", CLASS, "", "1:9", gone)) == 1
        assert await box.ask("PING") == b"PONG"
    assert await lab.r.exists(lab.keys.lane_classes(gone)) == 0


async def test_an_answer_that_was_not_asked_for_ends_the_line(lab: GateLab) -> None:
    """Were it counted, all later answers would be taken for those of the command before."""
    told: list[bytes] = []
    subscribed = asyncio.Event()

    async def tell(data: bytes) -> None:
        told.append(data)
        subscribed.set()

    line = Line(lab.r, tell)
    await line.connect()
    try:
        pump = asyncio.create_task(line.pump())
        await line.ask(as_words("SUBSCRIBE", "x"))  # the gate never lets it through
        await subscribed.wait()
        await line.silence()
        await lab.r.publish("x", "unasked")
        async with asyncio.timeout(ANSWER_S):
            await pump
        assert len(told) == 1
    finally:
        await line.aclose()


async def test_answers_of_the_third_protocol_are_counted_as_what_they_are(lab: GateLab) -> None:
    """A truth value among them is an answer too."""
    async with raw(lab, OTHER) as box:
        assert isinstance(await box.ask("HELLO", "3"), dict)
        assert await box.ask("HGET", lab.keys.machines, OTHER) is None
        await box.send(("PING",), ("CLIENT", "SETNAME", "x"), ("PING",))
        assert [await box.reply() for _ in range(3)] == [b"PONG", b"OK", b"PONG"]


def as_words(*words: str) -> Words:
    return tuple(word.encode() for word in words)
