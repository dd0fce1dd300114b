"""The event stream: order, resume, live state, heartbeats, restarts of Redis and API; and the event log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from emp_orch.store.fleet.events import MAX_EVENTS
from emp_orch.store.reports.reports import forget_worker
from support.http.deltas import Mirror
from support.http.sse import Reader, stream
from support.http.stack import Producer, Stack, eventually, fleet_of

HEARTBEAT_EVERY_S = 15


@pytest.fixture(params=["api", "monitor"])
def url(request: pytest.FixtureRequest, http_stack: Stack) -> str:
    """The stream at its source, and through the monitor's proxy."""
    found: str = getattr(http_stack, request.param)
    return found


async def test_connected_snapshot_then_events(url: str, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    async with stream(url) as reader:
        connected = await reader.next()
        assert connected.event == "connected"
        assert json.loads(connected.data)["resumed"] is False
        snapshot = await reader.next()
        assert snapshot.event == "full_state_snapshot"
        data = json.loads(snapshot.data)["data"]
        assert [m["machine_id"] for m in data["machines"]] == ["m1"]
        pools = {"pools", "members", "points"}
        assert set(data) == {"machines", "workers", "jobs", "drift", "fleet", "system_stats", *pools}
        first = await producer.events.append("worker_status", worker_id="m1-worker-0", status="busy")
        second = await producer.events.append("note", text="two\nlines\r\nand ünïcode")
        event = await reader.next()
        assert (event.event, event.id) == ("worker_status", first)
        assert json.loads(event.data)["status"] == "busy"
        event = await reader.next()
        assert event.id == second
        assert json.loads(event.data)["text"] == "two\nlines\r\nand ünïcode"


@pytest.mark.parametrize("query", ["", "?every=20"])
async def test_it_resumes_after_the_last_event(url: str, producer: Producer, query: str) -> None:
    ids = [await producer.events.append("note", n=n) for n in range(5)]
    async with stream(url, f"/api/events/monitor{query}", **{"Last-Event-ID": ids[1]}) as reader:
        assert json.loads((await reader.next()).data)["resumed"] is True
        assert [(await reader.next()).id for _ in range(3)] == ids[2:]
        later = await producer.events.append("note", n=5)
        assert (await reader.next()).id == later


@pytest.mark.parametrize("last_id", ["1-1", "99999999999999-0", "nonsense", "9" * 40 + "-1"])
async def test_what_cannot_be_resumed_is_told_by_a_snapshot(
    http_stack: Stack, producer: Producer, last_id: str
) -> None:
    await producer.events.append("note")
    async with stream(http_stack.api, **{"Last-Event-ID": last_id}) as reader:
        assert json.loads((await reader.next()).data)["resumed"] is False
        assert (await reader.next()).event == "full_state_snapshot"


async def test_a_long_absence_is_told_by_a_snapshot(http_stack: Stack, producer: Producer) -> None:
    first = await producer.events.append("note")
    async with producer.redis.pipeline(transaction=False) as pipe:
        for _ in range(MAX_EVENTS + 500):
            pipe.xadd("events", {"type": "note", "data": '{"type":"note"}'}, maxlen=MAX_EVENTS, approximate=False)
        await pipe.execute()
    async with stream(http_stack.api, **{"Last-Event-ID": first}) as reader:
        assert json.loads((await reader.next()).data)["resumed"] is False


async def test_who_waits_a_while_gets_all_that_came_in_order(url: str, producer: Producer) -> None:
    async with stream(url, "/api/events/monitor?every=50") as reader:
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        ids = [await producer.events.append("note", n=n) for n in range(300)]
        assert [(await reader.next()).id for _ in ids] == ids
    async with aiohttp.ClientSession() as http, http.get(f"{url}/api/events/monitor?every=no") as answer:
        assert answer.status == 400 and "every" in await answer.text()


async def test_live_clients_get_deltas_and_heartbeats(url: str, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    async with stream(url, "/api/events/monitor?live=1") as reader:
        mirror = Mirror()
        _, document = await reader.until(lambda e, _: e.event == "full_state_snapshot")
        mirror.snapshot(document)
        await producer.worker("m1", 0)
        await producer.events.append("worker_status", worker_id="m1-worker-0", status="idle")
        await followed(reader, mirror, lambda: "m1-worker-0" in mirror.tables["workers"])
        assert mirror.tables["machines"]["m1"]["workers"] == ["m1-worker-0"]
        assert mirror.rest["system_stats"]["workers"]["total"] == 1
        _, beat = await reader.until(lambda e, _: e.event == "heartbeat", 5)
        assert beat["redis"] is True
        assert beat["revision"] == mirror.revision
        # A machine that falls silent sends no event; it is told all the same.
        await producer.silence("m1", 60_000)
        await followed(reader, mirror, lambda: mirror.tables["machines"]["m1"]["stale"])
        # And one that is removed, or heard again.
        await producer.machine(fleet, "m1")
        await followed(reader, mirror, lambda: not mirror.tables["machines"]["m1"]["stale"])
        await forget_worker(producer.redis, producer.keys, "m1-worker-0", seen_ms=None)
        await followed(reader, mirror, lambda: "m1-worker-0" not in mirror.tables["workers"])
        assert mirror.tables["machines"]["m1"]["workers"] == []


async def followed(reader: Reader, mirror: Mirror, true: Callable[[], bool], deadline_s: float = 10) -> None:
    """Take what comes until it is true."""
    async with asyncio.timeout(deadline_s):
        while not true():
            event = await reader.next()
            mirror.told(event.event, json.loads(event.data))


async def test_an_unchanged_state_is_not_sent_again(http_stack: Stack, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    async with stream(http_stack.api, "/api/events/monitor?live=1") as reader:
        await reader.until(lambda e, _: e.event == "heartbeat")
        await producer.machine(fleet, "m1")
        seen = [(await reader.until(lambda e, _: e.event in ("delta", "heartbeat")))[0].event for _ in range(4)]
        assert seen.count("heartbeat") >= 3


async def test_a_comment_keeps_a_silent_stream_open(http_stack: Stack) -> None:
    async with stream(http_stack.api) as reader:
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        with pytest.raises(TimeoutError):
            await reader.next(HEARTBEAT_EVERY_S + 2)
        assert b"\n: heartbeat\n\n" in reader.raw


async def test_a_redis_restart_is_survived_with_a_resync(http_stack: Stack, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    async with stream(http_stack.api, "/api/events/monitor?live=1") as reader:
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        http_stack.stop_redis()
        await reader.until(lambda e, d: e.event == "heartbeat" and d["redis"] is False)
        http_stack.start_redis()
        await producer.redis.connection_pool.disconnect()
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        await reader.until(lambda e, d: e.event == "heartbeat" and d["redis"] is True)
        event_id = await producer.events.append("note")
        event, _ = await reader.until(lambda e, _: e.event == "note")
        assert event.id == event_id
    await http_stack.answers(f"{http_stack.api}/ready")
    log = http_stack.daemons["api"].text
    assert log.count("subscribed to machine:startup:events") >= 2
    assert log.count("subscribed to events") >= 2
    assert "Traceback" not in log


async def test_an_emptied_redis_is_followed_from_its_new_beginning(http_stack: Stack, producer: Producer) -> None:
    await producer.redis.xadd("events", {"type": "note", "data": "{}"}, id="99999999999999-0")
    async with stream(http_stack.api) as reader:
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        await eventually(lambda: _position(http_stack), "the follower is past the event")
        await producer.redis.flushall()
        await http_stack.restart_redis(producer)
        await reader.until(lambda e, _: e.event == "full_state_snapshot")
        event_id = await producer.events.append("note")
        event, _ = await reader.until(lambda e, _: e.event == "note")
        assert event.id == event_id


async def _position(stack: Stack) -> bool:
    async with stream(stack.api) as reader:
        event, _ = await reader.until(lambda e, _: e.event == "full_state_snapshot")
        return event.id == "99999999999999-0"


async def test_a_client_that_takes_nothing_is_dropped_to_a_resync(http_stack: Stack, producer: Producer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", http_stack.settings.api.port, limit=1024)
    writer.write(b"GET /api/events/monitor HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"full_state_snapshot")
    # It now reads no more, while 64 MB of events pass by.
    text = "x" * 64_000
    for _ in range(1_000):
        await producer.events.append("note", text=text)
    await producer.events.append("last")
    async with stream(http_stack.api, **{"Last-Event-ID": (await producer.events.recent(3))[0].id}) as other:
        await other.until(lambda e, _: e.event == "last")
    statm = await asyncio.to_thread(_resident_mib, http_stack.daemons["api"].popen.pid)
    assert statm < 250, f"{statm} MiB"
    async with aiohttp.ClientSession() as session, session.get(f"{http_stack.api}/metrics") as response:
        assert "emp_api_resyncs_total 1.0" in (await response.text()).splitlines()
    # Reading again, it finds what was on its way, then a whole new snapshot, then what comes.
    tail = b""
    async with asyncio.timeout(30):
        while b"event: full_state_snapshot" not in tail:
            tail = tail[-100:] + await reader.read(1 << 20)
    writer.close()
    assert http_stack.daemons["api"].popen.poll() is None


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 1024 / 1024


async def test_machine_events_by_pubsub_are_logged(http_stack: Stack, producer: Producer) -> None:
    await producer.events.append_machine("machine_startup", machine_id="m1", phase="ready")
    await producer.redis.publish("machine:startup:events", '{"type":"x\\nforged line","machine_id":"m1"}')
    api = http_stack.daemons["api"]

    async def logged() -> bool:
        return "machine_startup m1 ready" in api.text and "forged line" in api.text

    await eventually(logged, "the log names the event")
    assert not any(line.startswith("forged") for line in api.text.splitlines())


async def test_the_event_log_writes_every_event(http_stack: Stack, producer: Producer) -> None:
    http_stack.start("eventlog")
    path = http_stack.layout.log("monitorEventStream")

    async def lines() -> list[dict[str, object]]:
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def has(event: str, count: int = 1) -> bool:
        return sum(line["event"] == event for line in await lines()) >= count

    await eventually(lambda: has("full_state_snapshot"), "a snapshot in the log")
    before = await producer.events.append("before_restart", n=1)
    await eventually(lambda: has("before_restart"), "the event in the log")
    # What happens while the API is away is in the log too, once.
    http_stack.stop("api", signal.SIGKILL)
    missed = await producer.events.append("while_away", n=2)
    http_stack.start("api")
    await eventually(lambda: has("while_away"), "the missed event in the log")
    found = await lines()
    assert set(found[0]) == {"at", "event", "id", "data"}
    assert [line["id"] for line in found if line["event"] in ("before_restart", "while_away")] == [before, missed]
    assert http_stack.stop("eventlog") == 0
