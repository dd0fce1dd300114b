"""Every live client is told every change or begins anew: after an emptied and a restarted Redis, and slow ones too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp

from emp_orch.api.feed.live import SNAPSHOT_S
from emp_orch.fleet.model.observed import WorkerStatus
from emp_orch.monitor.sse_client import Parser
from support.http.deltas import Mirror, parted, steady
from support.http.sse import Reader, stream
from support.http.stack import Producer, Stack, fleet_of

LIVE = "/api/events/monitor?live=1"
FLEET = fleet_of("m1", "m2")
CROWD = 500


async def populate(producer: Producer) -> None:
    await producer.apply(FLEET)
    for machine in ("m1", "m2"):
        await producer.machine(FLEET, machine)
        await producer.worker(machine, 0)
    await producer.status()


async def truth(stack: Stack) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.api}/api/monitor/state") as response:
        return await response.json()


async def told(reader: Reader, mirror: Mirror, true: Callable[[], bool], deadline_s: float = 20) -> None:
    """Take what comes until it is true; raises Gap when something was left out."""
    async with asyncio.timeout(deadline_s):
        while mirror.revision is None or not true():
            event = await reader.next(deadline_s)
            mirror.told(event.event, json.loads(event.data))


def status_of(mirror: Mirror, worker: str) -> str:
    return str(mirror.tables["workers"].get(worker, {}).get("status"))


async def test_the_state_is_the_revision_that_the_stream_tells(http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    async with stream(http_stack.api, LIVE) as reader:
        mirror = Mirror()
        await told(reader, mirror, lambda: True)
        await producer.worker("m1", 0, status=WorkerStatus.BUSY)
        found = await truth(http_stack)
        await told(reader, mirror, lambda: mirror.revision == found["revision"])
        assert mirror.known == steady(*parted(found["data"]))
        assert status_of(mirror, "m1-worker-0") == "busy"


async def test_who_joins_while_much_changes_lacks_nothing(http_stack: Stack, producer: Producer) -> None:
    """The snapshot that was made for the first is given to those who follow, and the deltas since behind it."""
    await populate(producer)
    async with stream(http_stack.api, LIVE) as first:
        early = Mirror()
        await told(first, early, lambda: True)
        for turn in range(6):
            status = (WorkerStatus.BUSY, WorkerStatus.IDLE)[turn % 2]
            await producer.worker("m2", 0, status=status)
            await producer.events.append("worker_status", worker_id="m2-worker-0", status=status)
            await told(first, early, lambda s=status: status_of(early, "m2-worker-0") == s)  # type: ignore[misc]
            async with stream(http_stack.api, LIVE) as reader:
                late = Mirror()
                await told(reader, late, lambda at=late, s=status: status_of(at, "m2-worker-0") == s)  # type: ignore[misc]
                await told(first, early, lambda at=late: (early.revision or 0) >= (at.revision or 0))  # type: ignore[misc]
                await told(reader, late, lambda at=late: (at.revision or 0) >= (early.revision or 0))  # type: ignore[misc]
                assert late.known == early.known
        async with stream(http_stack.api) as reader:
            _, whole = await reader.until(lambda e, _: e.event == "full_state_snapshot")
            assert steady(*parted(whole["data"])) == early.known
            after = await producer.events.append("note")
            assert (await reader.next()).id == after  # and no delta


async def test_a_snapshot_says_what_time_it_tells_of(http_stack: Stack, producer: Producer) -> None:
    """Also of one that was made for another client: what happened before its time is in it, and it is not old.

    A page once showed the state that a client of five minutes before was given, as if it were now's, and took the
    difference to the next delta for something that had just healed.
    """
    await populate(producer)
    async with stream(http_stack.api, LIVE) as first:
        early = Mirror()
        await told(first, early, lambda: True)
        for turn in range(8):
            status = (WorkerStatus.BUSY, WorkerStatus.IDLE)[turn % 2]
            await producer.worker("m2", 0, status=status)
            changed_ms = time.time() * 1000
            await told(first, early, lambda s=status: status_of(early, "m2-worker-0") == s)  # type: ignore[misc]
            for path in (LIVE, "/api/events/monitor"):
                asked_ms = time.time() * 1000
                async with stream(http_stack.api, path) as reader:
                    _, whole = await reader.until(lambda e, _: e.event == "full_state_snapshot")
                at_ms = datetime.fromisoformat(whole["timestamp"]).timestamp() * 1000
                workers = {w["worker_id"]: w["status"] for w in whole["data"]["workers"]}
                assert at_ms < changed_ms or workers["m2-worker-0"] == status, (path, turn)
                assert at_ms >= asked_ms - 1000 * SNAPSHOT_S - 1


async def test_an_emptied_redis_is_told_as_it_is(http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    async with stream(http_stack.api, LIVE) as reader:
        mirror = Mirror()
        await told(reader, mirror, lambda: True)
        await producer.redis.flushall()
        await told(reader, mirror, lambda: not mirror.tables["machines"] and not mirror.tables["desired"])
        await producer.apply(fleet_of("m9"))
        await producer.machine(fleet_of("m9"), "m9")
        await told(reader, mirror, lambda: "m9" in mirror.tables["machines"])
        assert mirror.tables["machines"].keys() == mirror.tables["desired"].keys() == {"m9"}


async def test_a_restarted_redis_makes_everybody_begin_anew(http_stack: Stack, producer: Producer) -> None:
    await populate(producer)
    async with stream(http_stack.api, LIVE) as reader:
        mirror = Mirror()
        await told(reader, mirror, lambda: True)
        await http_stack.restart_redis(producer)
        await producer.worker("m1", 0, status=WorkerStatus.DRAINING)
        await told(reader, mirror, lambda: status_of(mirror, "m1-worker-0") == "draining")


async def test_a_delta_of_another_revision_is_noticed(http_stack: Stack, producer: Producer) -> None:
    """What a client does that lacks one: it connects again, with the last id, and is whole."""
    await populate(producer)
    async with stream(http_stack.api, LIVE) as reader:
        mirror = Mirror()
        await told(reader, mirror, lambda: True)
        last_id = await producer.events.append("note")
    await producer.worker("m1", 0, status=WorkerStatus.BUSY)
    async with stream(http_stack.api, LIVE, **{"Last-Event-ID": last_id}) as reader:
        connected = await reader.next()
        assert json.loads(connected.data)["resumed"] is True
        assert (await reader.next()).event == "full_state_snapshot"
    assert mirror.revision is not None


class Listener:
    """A client of a crowd: mirrors what it is told. A slow one takes nothing for a while, and little at once."""

    def __init__(self, port: int) -> None:
        self.mirror = Mirror()
        self.snapshots = 0
        self.go = asyncio.Event()
        self.go.set()
        self._port = port
        self._parser = Parser()

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
        writer.write(f"GET {LIVE} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        try:
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                for event in self._parser.feed((await reader.readexactly(size + 2))[:-2]):
                    self.snapshots += event.event == "full_state_snapshot"
                    if event.event in ("full_state_snapshot", "delta"):
                        self.mirror.told(event.event, json.loads(event.data))
                await self.go.wait()
        finally:
            writer.close()

    def at(self, number: int) -> bool:
        """Whether it was told of change `number`."""
        return self.mirror.revision is not None and (
            self.mirror.tables["workers"].get("m1-worker-0", {}).get("current_job_id") == f"job-{number}"
        )


async def until(true: Callable[[], bool], listening: list[asyncio.Task[None]], deadline_s: float = 60) -> None:
    async with asyncio.timeout(deadline_s):
        while not true():
            for task in listening:
                if task.done():
                    task.result()
                    raise AssertionError("a stream ended")
            await asyncio.sleep(0.02)


def resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1024 / 1024


async def test_a_crowd_is_told_every_change_or_begins_anew(http_stack: Stack, producer: Producer) -> None:
    """500 clients, of which ten stop reading while 20 MB of events pass by."""
    await populate(producer)
    crowd = [Listener(http_stack.settings.api.port) for _ in range(CROWD)]
    tasks = [asyncio.create_task(c.run()) for c in crowd]
    try:
        await until(lambda: all(c.mirror.revision is not None for c in crowd), tasks)
        pid = http_stack.daemons["api"].popen.pid
        before = resident_mib(pid)
        slow, quick = crowd[:10], crowd[10:]
        for client in slow:
            client.go.clear()
        for number in range(20):
            await producer.worker("m1", 0, status=WorkerStatus.BUSY, job=f"job-{number}")
            await producer.events.append("note", text="x" * 100)
        await until(lambda: all(c.at(19) for c in quick), tasks)
        assert {c.snapshots for c in quick} == {1}
        for task in tasks[10:]:
            task.cancel()
        await asyncio.gather(*tasks[10:], return_exceptions=True)
        for _ in range(200):
            await producer.events.append("note", text="x" * 100_000)
        await producer.worker("m1", 0, job="job-99")
        async with stream(http_stack.api, LIVE) as reader:
            mirror = Mirror()
            await told(reader, mirror, lambda: mirror.tables["workers"]["m1-worker-0"]["current_job_id"] == "job-99")
        assert resident_mib(pid) - before < 120
        for client in slow:
            client.go.set()
        await until(lambda: all(c.at(99) for c in slow), tasks[:10])
        assert {c.snapshots for c in slow} <= {2, 3}  # anew; once more where that had to wait, too
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
