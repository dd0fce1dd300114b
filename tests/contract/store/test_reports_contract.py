"""Reports in a real Redis and Valkey: one writer, heartbeats, damaged documents, forgetting."""

from __future__ import annotations

import pytest
from msgspec import json, structs

from emp_orch.fleet.model.ids import worker_id
from emp_orch.fleet.model.observed import MachineReport
from emp_orch.store.fleet.events import Events
from emp_orch.store.redis.client import Client, client, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.changes import began_anew, changes_since, current_seq
from emp_orch.store.reports.reports import (
    BEATS_PER_DOCUMENT,
    forget_worker,
    machine_writer,
    read_reports,
    worker_writer,
)
from support.fleet.fleets import SIMULATION, one, report, worker
from support.redis.server import Server, until

KEYS = Keys("t:")
M = one([SIMULATION])
W = worker_id(M.id, 0)


async def test_what_is_written_is_read_with_the_time_it_was_heard(r: Client) -> None:
    await machine_writer(r, KEYS, M.id).write(report(M).report)
    await worker_writer(r, KEYS, W).write(worker(M, 0).report)
    seen = await read_reports(r, KEYS)
    assert seen.machines[M.id].report == report(M).report
    assert seen.workers[W].report == worker(M, 0).report
    assert 0 <= seen.now_ms - seen.machines[M.id].seen_ms < 5_000
    assert seen.malformed == ()


async def test_what_is_read_does_not_depend_on_the_protocol(r: Client, server: Server) -> None:
    await machine_writer(r, KEYS, M.id).write(report(M).report)
    await worker_writer(r, KEYS, W).write(worker(M, 0).report)
    seen = await read_reports(r, KEYS)
    for protocol in (2, 3):
        async with client(f"{server.url}?protocol={protocol}") as other:
            again = await read_reports(other, KEYS)
        assert (again.machines, again.workers) == (seen.machines, seen.workers)


async def test_who_follows_the_changes_sees_that_redis_was_emptied(r: Client) -> None:
    writer = machine_writer(r, KEYS, M.id)
    await writer.write(report(M).report)
    before = await current_seq(r, KEYS)
    await worker_writer(r, KEYS, W).write(worker(M, 0).report)
    changes = await changes_since(r, KEYS, before, stale_after_ms=10_000)
    assert (changes.workers, changes.machines) == (frozenset({W}), frozenset())
    assert changes.whole_since(before)
    await r.flushall()
    assert began_anew(before, await current_seq(r, KEYS))
    # The counter is a time in µs: what is emptied and filled again within KEPT_CHANGES of them may look like one Redis.
    began = await time_ms(r)

    async def later() -> bool:
        return await time_ms(r) - began > 200

    await until(later)
    await writer.write(report(M).report)
    assert began_anew(before, await current_seq(r, KEYS))


@pytest.mark.parametrize(("away_ms", "silent"), [(-60_000, True), (-5_000, False), (5_000, False), (60_000, True)])
async def test_who_was_heard_in_the_future_is_silent(r: Client, away_ms: int, silent: bool) -> None:
    """Redis' clock was set back: a look by changes and a look at all must say the same of who is silent."""
    await machine_writer(r, KEYS, M.id).write(report(M).report)
    await worker_writer(r, KEYS, W).write(worker(M, 0).report)
    at_ms = await time_ms(r) + away_ms
    await r.zadd(KEYS.machines_seen, {M.id: at_ms})
    await r.zadd(KEYS.workers_seen, {W: at_ms})
    changes = await changes_since(r, KEYS, await current_seq(r, KEYS), stale_after_ms=10_000)
    expected = (frozenset({M.id}), frozenset({W})) if silent else (frozenset[str](), frozenset[str]())
    assert (changes.silent_machines, changes.silent_workers) == expected


@pytest.mark.parametrize("damage", ["{", "7", '{"machine_id": "m"}', "", '{"machine_id": 7}'])
async def test_a_damaged_document_is_named_and_made_whole_by_its_living_writer(r: Client, damage: str) -> None:
    writer = machine_writer(r, KEYS, M.id)
    await writer.write(report(M).report)
    await r.hset(KEYS.machines, M.id, damage)
    (bad,) = (await read_reports(r, KEYS)).malformed
    assert (bad.kind, bad.id) == ("machine", M.id)
    assert bad.error
    # Its writer is alive all the while, and seen to be.
    assert bad.seen_ms == int(await r.zscore(KEYS.machines_seen, M.id) or 0)
    for _ in range(BEATS_PER_DOCUMENT + 1):
        await writer.write(report(M).report)
    seen = await read_reports(r, KEYS)
    assert seen.malformed == ()
    assert seen.machines[M.id].report == report(M).report


async def test_a_document_that_names_somebody_else_is_malformed(r: Client) -> None:
    await worker_writer(r, KEYS, W).write(worker(M, 1).report)
    (bad,) = (await read_reports(r, KEYS)).malformed
    assert (bad.kind, bad.id, bad.error) == ("worker", W, "its document names 'm-worker-1'")


async def test_an_unchanged_report_is_only_a_heartbeat(r: Client) -> None:
    writer = worker_writer(r, KEYS, W)
    await writer.write(worker(M, 0).report)
    await r.hset(KEYS.workers, W, "marked")
    await writer.write(worker(M, 0).report)
    assert await r.hget(KEYS.workers, W) == "marked"


async def test_events_go_out_with_their_report_once(r: Client) -> None:
    writer, events = worker_writer(r, KEYS, W), Events(r, KEYS)
    await writer.write(worker(M, 0).report, [("worker_status", {"status": "idle"})])
    await writer.write(worker(M, 0).report, [("a", {"n": 1}), ("b", {"n": 2})])
    await r.delete(KEYS.workers)
    await writer.write(worker(M, 0).report, [("c", {"n": 3})])
    told = await events.recent(10)
    assert [(e.type, e.data) for e in told] == [
        ("worker_status", {"type": "worker_status", "status": "idle"}),
        *((name, {"type": name, "n": n}) for n, name in enumerate("abc", start=1)),
    ]


async def test_a_report_taken_away_is_not_brought_back_by_a_heartbeat_but_written_whole(r: Client) -> None:
    writer = worker_writer(r, KEYS, W)
    await writer.write(worker(M, 0).report)
    await r.flushall()
    await writer.write(worker(M, 0).report)
    assert (await read_reports(r, KEYS)).workers[W].report == worker(M, 0).report
    await writer.withdraw()
    seen = await read_reports(r, KEYS)
    assert (seen.workers, seen.malformed) == ({}, ())
    assert await r.zcard(KEYS.workers_seen) == 0


async def test_who_reports_meanwhile_is_not_forgotten(r: Client) -> None:
    await worker_writer(r, KEYS, W).write(worker(M, 0).report)
    seen_ms = (await read_reports(r, KEYS)).workers[W].seen_ms
    assert not await forget_worker(r, KEYS, W, seen_ms=seen_ms - 1)
    assert W in (await read_reports(r, KEYS)).workers
    assert await forget_worker(r, KEYS, W, seen_ms=seen_ms)
    assert (await read_reports(r, KEYS)).workers == {}


async def test_a_second_writer_of_a_document_is_noticed_by_its_next_heartbeat(r: Client) -> None:
    mine, theirs = report(M).report, structs.replace(report(M).report, boot_id="2-2")
    one_, two = machine_writer(r, KEYS, M.id), machine_writer(r, KEYS, M.id)
    assert await one_.write(mine) is None
    assert await one_.write(mine) is None
    assert await two.write(theirs) is None, "who has not written yet finds what a former life left"
    found = await one_.write(mine)  # a heartbeat
    assert found is not None and json.decode(found, type=MachineReport) == theirs
    assert await two.write(theirs) == found, "a heartbeat leaves the document, which is the second writer's own"
    assert await one_.write(structs.replace(mine, error="x")) == found
    assert await one_.write(structs.replace(mine, error="x")) is None


async def test_a_second_writer_shows_within_the_same_millisecond_too(r: Client) -> None:
    mine, theirs = report(M).report, structs.replace(report(M).report, boot_id="2-2")
    one_, two = machine_writer(r, KEYS, M.id), machine_writer(r, KEYS, M.id)
    await one_.write(mine)
    await two.write(theirs)
    for round_ in range(100):
        assert await one_.write(mine) is not None, round_
        assert await two.write(theirs) is not None, round_
        assert await one_.write(mine) is not None, round_
        assert await one_.write(mine) is None, round_
        assert await two.write(theirs) is not None, round_
    heard_ms = (await read_reports(r, KEYS)).machines[M.id].seen_ms
    assert heard_ms <= await time_ms(r) + 100, "it may run ahead of the clock no further"


async def test_what_was_removed_or_given_back_has_no_second_writer(r: Client) -> None:
    writer = machine_writer(r, KEYS, M.id)
    await writer.write(report(M).report)
    await r.flushall()
    assert await writer.write(report(M).report) is None
    await writer.withdraw()
    await machine_writer(r, KEYS, M.id).write(report(M).report)
    assert await writer.write(report(M).report) is None
