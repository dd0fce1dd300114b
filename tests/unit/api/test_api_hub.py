"""Clients' buffers: bounded, dropped to a resync, never a gap. And how an event becomes bytes."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_orch.api.feed.frames import Batch, Frame, parse_id
from emp_orch.api.feed.hub import MAX_PENDING_BYTES, Subscription
from emp_orch.monitor.sse_client import Parser
from emp_orch.store.fleet.events import Event


async def test_a_slow_client_never_grows_past_its_bound() -> None:
    subscription = Subscription(live=False)
    frame = Frame("note", {"text": "x" * 100_000})
    offered = [subscription.offer(Batch([frame])) for _ in range(2 * MAX_PENDING_BYTES // 100_000)]
    assert offered.count(False) == 1
    assert subscription.lost
    assert await subscription.take(0.01) == []
    subscription.restart()
    assert subscription.offer(Batch([frame]))
    assert await subscription.take(0.01) == [frame]


async def test_taking_is_immediate_when_something_waits_and_bounded_when_not() -> None:
    subscription = Subscription(live=False)
    assert await subscription.take(0.01) == []
    frames = [Frame("a", {}), Frame("b", {})]
    for frame in frames:
        subscription.offer(Batch([frame]))
    assert await subscription.take(5) == frames
    subscription.close()
    assert await subscription.take(5) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1-2", (1, 2)),
        ("0-0", (0, 0)),
        ("", None),
        ("1", None),
        ("1-", None),
        ("-1-1", None),
        ("9" * 20 + "-0", None),
        ("\u0661-0", None),
        ("18446744073709551616-0", None),
        ("18446744073709551615-0", (2**64 - 1, 0)),
    ],
)
def test_ids(text: str, found: tuple[int, int] | None) -> None:
    assert parse_id(text) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.tuples(st.text(), st.dictionaries(st.text(), json_values, max_size=4)), max_size=6),
    st.integers(1, 40),
)
def test_whatever_an_event_holds_arrives_whole_and_alone(
    events: list[tuple[str, dict[str, object]]], size: int
) -> None:
    frames = [Frame.of(Event(id=f"{n}-0", type=t, data=d)) for n, (t, d) in enumerate(events)]
    wire = b"".join(f.sse for f in frames)
    parser = Parser()
    got = [e for i in range(0, len(wire), size) for e in parser.feed(wire[i : i + size])]
    assert [(e.event, e.id, json.loads(e.data)) for e in got] == [
        (t if t and t.isprintable() else "malformed", f"{n}-0", d) for n, (t, d) in enumerate(events)
    ]
    assert [json.loads(f.ws)["data"] for f in frames] == [d for _, d in events]


async def test_a_waiting_client_is_written_to_directly_and_a_busy_one_is_not() -> None:
    subscription = Subscription(live=True)
    written: list[Batch] = []
    room = True

    def direct(batch: Batch) -> bool:
        if room:
            written.append(batch)
        return room

    subscription.direct = direct
    a, b, c, d = (Batch([Frame("note", {}, f"{n}-0")]) for n in range(1, 5))
    subscription.offer(a)  # nobody waits yet
    assert await subscription.batches(5) == [a]
    waiting = asyncio.create_task(subscription.batches(5))
    await asyncio.sleep(0)
    subscription.offer(b)
    assert written == [b] and not waiting.done()
    subscription.offer(b)  # told already: whoever sends it leaves it out
    assert (await waiting)[0].after(subscription.sent).frames == []
    waiting = asyncio.create_task(subscription.batches(5))
    await asyncio.sleep(0)
    room = False
    subscription.offer(c)
    room = True
    subscription.offer(d)  # not before what waits
    assert await waiting == [c, d]
    assert written == [b]


def test_a_batch_is_one_chunk_of_a_body() -> None:
    batch = Batch([Frame("a", {"n": 1}, "1-0"), Frame("b", {"text": "x" * 300})])
    size, _, rest = batch.chunk(packed=False).partition(b"\r\n")
    assert int(size, 16) == len(batch.text.plain) and rest == batch.text.plain + b"\r\n"
    assert [f.event for f in batch.after((1, 0)).frames] == ["b"]
    assert batch.after((0, 9)) is batch
