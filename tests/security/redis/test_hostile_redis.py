"""Whoever can write into Redis spoils what they write, and nothing else: any bytes in any key of emp's.

`make fuzz` runs the corpus for long: EMP_FUZZ is how many cases, EMP_FUZZ_SEED which, EMP_FUZZ_TOGETHER how many stand
at the same time, each in a key of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as rexc

from emp_orch.control.doctor.repair import repair
from emp_orch.control.plane.embedded import configuration
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.settings import save
from emp_orch.store import contract
from emp_orch.store.fleet.journal import recent
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import client, time_ms
from emp_orch.store.reports.reports import FORGET, keys_of, read_reports
from support.hostile.corpus import HIGHEST, KINDS, Case, Standing, edges, make, mutations, standing, wrong_types
from support.hostile.world import BOXES, FLEET, World
from support.redis.server import SERVERS, Server, embedded_server, free_port, job, running_server, until

CASES = int(os.environ.get("EMP_FUZZ", "120"))
SEED = int(os.environ.get("EMP_FUZZ_SEED", "0"))
TOGETHER = int(os.environ.get("EMP_FUZZ_TOGETHER", "1"))


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
async def world(server: Server, tmp_path: Path) -> AsyncIterator[World]:
    made = World(server.url, tmp_path / "fleet")
    await made.raw.flushall()
    await made.build()
    async with made.running():
        yield made
    await made.raw.aclose()
    await made.r.aclose()


def corpus(keys: list[Standing], rng: random.Random) -> Iterator[Case]:
    """For ever: every wrong type and edge value in some order, and as many mutations between them."""
    fixed = [*wrong_types(keys), *edges(keys)]
    rng.shuffle(fixed)
    others = mutations(keys, rng)
    for case in itertools.chain(fixed, others):
        yield case
        yield next(others)


def together(cases: Iterable[Case]) -> Iterator[list[Case]]:
    """At most TOGETHER of them at a time, and never two for one key."""
    held: dict[str, Case] = {}
    for case in cases:
        if case.key in held or len(held) == TOGETHER:
            yield list(held.values())
            held = {}
        held[case.key] = case
    yield list(held.values())


async def taken(world: World, case: Case) -> bool:
    """Whether Redis itself takes it: an id that is too low, it refuses."""
    try:
        await world.harm(case)
    except rexc.ResponseError:
        return False
    return True


async def test_any_bytes_in_any_key(world: World) -> None:
    keys = await standing(world.raw, b"box-2")
    assert not await world.probe([]), "before anything is harmed"
    for cases in together(itertools.islice(corpus(keys, random.Random(SEED)), CASES)):
        stand = [case for case in cases if await taken(world, case)]
        wrong = await world.probe(stand)
        await world.heal(*stand)
        assert not wrong, f"{stand} (seed {SEED})\n" + "\n".join(wrong)


def test_the_embedded_redis_takes_no_value_that_is_too_large(tmp_path: Path) -> None:
    """An event, say: whoever follows them holds all of it."""
    port, file = free_port(), tmp_path / "redis.conf"
    file.write_text(configuration(tmp_path, port))
    with embedded_server([str(file)], port) as r:
        r.xadd("events", {"data": "x" * 4 * 1024 * 1024})
        with pytest.raises((rexc.ResponseError, rexc.ConnectionError)):
            r.xadd("events", {"data": "x" * 65 * 1024 * 1024})
        assert r.xlen("events") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_the_contract_names_each_key_of_another_type(world: World, kind: str) -> None:
    """Those of a fleet; what there is of one job or lane costs that job or lane, and is named where it is read."""
    for key, wanted in contract.expected(world.keys, FLEET, BOXES).items():
        if wanted.kind == kind or key == world.keys.leader(FLEET):
            continue
        await world.harm(Case(key, kind, (("DEL", key), make(key.encode(), kind))))
        found = [d for d in await contract.look(world.r, world.keys, FLEET, BOXES) if d.key == key]
        # What a reconciler writes whole each round is its own again by now.
        assert found or (await world.r.type(key)) == wanted.kind, key
        await world.heal(Case(key, "", ()))


async def test_a_key_that_is_not_emps_is_drift_until_it_is_put_aside(world: World) -> None:
    """The reports cannot be read: nobody is said to be away, and nothing is done about anybody."""
    await world.harm(Case(world.keys.machines, "", (("DEL", world.keys.machines), make(b"machines", "list"))))

    def told(state: dict[str, Any]) -> bool:
        return any(d["kind"] == Kind.REDIS_DAMAGED and d["subject"] == "machines" for d in state["drift"])

    state = await world.until(told)
    (drift,) = [d for d in state["drift"] if d["kind"] == Kind.REDIS_DAMAGED]
    assert (drift["desired"], drift["observed"]) == ("a hash", "a list")
    status, story = await world.get("/api/drift/redis-damaged/control/machines")
    assert status == 200 and "emp doctor --repair" in story
    save(world.layout, world.settings)
    (done,) = await repair(world.layout)
    assert done.startswith("machines is damaged:") and done.endswith("for a week")
    aside = done.split()[2]
    assert await world.raw.lrange(aside, 0, -1) == [b"a", b"b"] and await world.raw.ttl(aside) > 0
    await world.report("box-1")
    await world.until(lambda s: not told(s) and {m["machine_id"] for m in s["machines"]} >= set(BOXES))


async def test_the_highest_id_in_a_stream_stops_nothing_and_heals(world: World) -> None:
    queue = Queue(world.r, world.keys)
    was = [e.id for e in await recent(world.r, world.keys, FLEET, 1_000)]
    for key in (world.keys.events, world.keys.journal(FLEET), world.keys.requests(FLEET)):
        await world.raw.execute_command("XADD", key, HIGHEST, "type", "x", "data", "{}")
    sent = await queue.submit(job())  # its event has no place: the job has
    assert (await queue.get(sent.job_id)).id == sent.job_id
    await world.report("box-1")

    async def healed() -> bool:
        world.loop.wake()
        return not [d for d in await contract.look(world.r, world.keys, FLEET) if d.heals]

    await until(healed)
    assert await world.ctx.events.append("x")

    async def told() -> bool:
        return "redis_repaired" in [e.type for e in await recent(world.r, world.keys, FLEET, 1_000)]

    await until(told)
    kept = [e.id for e in await recent(world.r, world.keys, FLEET, 1_000)]
    assert was and kept[: len(was)] == was, "what was in the journal is there still"

    async def followed() -> bool:
        return int(world.ctx.hub.position.partition("-")[0]) < 2**63 and world.ctx.hub.connected

    await until(followed)
    async with world.session.get("/api/events/monitor", params={"live": "1"}) as stream:
        await asyncio.wait_for(stream.content.readuntil(b"full_state_snapshot"), 10)
        await queue.submit(job())
        await asyncio.wait_for(stream.content.readuntil(b"job_submitted"), 20)


@pytest.mark.parametrize("forged", ["a stranger's", "", "x" * 1_000])
async def test_a_lease_without_an_end_has_one(world: World, forged: str) -> None:
    await world.raw.set(world.keys.leader(FLEET), forged)
    assert await world.a_round(), "nobody leads"
    assert 0 < await world.raw.pttl(world.keys.leader(FLEET)) <= 10_000


@pytest.mark.parametrize("number", [2**63, 2**64, -(2**64), 10**30, 10**400])
async def test_a_number_of_more_than_64_bits_is_a_report_that_does_not_fit(world: World, number: int) -> None:
    text = await world.raw.hget(world.keys.machines, b"box-1")
    assert text is not None
    report = {**json.loads(text), "num_gpus": number}
    await world.raw.hset(world.keys.machines, b"box-1", json.dumps(report))
    worker = json.loads(await world.raw.hget(world.keys.workers, b"box-1-worker-0") or b"{}")
    worker["capabilities"]["deep"] = [{"n": number}]
    await world.raw.hset(world.keys.workers, b"box-1-worker-0", json.dumps(worker))
    await world.heal(Case(world.keys.machines_seen, "", ()))
    await world.raw.delete(world.keys.reports_changed)

    def told(state: dict[str, Any]) -> bool:
        return {"box-1", "box-1-worker-0"} <= {d["subject"] for d in state["drift"] if d["kind"] == "report-malformed"}

    world.loop._backend.lost()  # or what changed without a word is seen within a minute
    state = await world.until(told)
    assert not world.ended() and any(m["machine_id"] == "box-2" and not m["stale"] for m in state["machines"])


async def test_a_report_of_the_future_is_not_heard(world: World) -> None:
    ahead = await time_ms(world.r) + 3_600_000
    await world.raw.zadd(world.keys.machines_seen, {"box-1": ahead})
    await world.until(lambda s: all(m["stale"] for m in s["machines"] if m["machine_id"] == "box-1"))
    gone = await world.r.register_script(FORGET)(keys=keys_of(world.keys, "machine"), args=["box-1", 0])
    assert gone == 1, "and can be forgotten"


async def test_a_look_costs_what_the_fleet_costs(world: World) -> None:
    """A report of 20 MB, and 60,000 workers of nobody's."""
    worker = json.loads(await world.raw.hget(world.keys.workers, b"box-2-worker-0") or b"{}")
    async with world.raw.pipeline(transaction=False) as pipe:
        pipe.hset(world.keys.machines, b"box-1", b"x" * 20 * 1024**2)
        for n in range(60_000):
            name = f"fake-{n}-worker-0"
            pipe.hset(world.keys.workers, name, json.dumps({**worker, "worker_id": name, "machine_id": f"fake-{n}"}))
        await pipe.execute()
    world.loop._backend.lost()
    wanted = [f"{box}-worker-0" for box in BOXES]
    found = await read_reports(world.r, world.keys, (*BOXES, *wanted))
    assert len(found.workers) < 25_000 and set(wanted) <= found.workers.keys()
    (large,) = found.malformed
    assert large.id == "box-1" and "its report has 20971520 bytes" in large.error
    assert await world.a_round(2)
    state = await world.until(lambda s: any(d["subject"] == "reports" for d in s["drift"]))
    assert len(state["workers"]) <= 1_010 and len(state["drift"]) <= 1_100
    assert set(wanted) <= {w["worker_id"] for w in state["workers"]}
    assert not await world.probe([])


async def test_one_bad_job_costs_one_row_and_is_named(world: World) -> None:
    bad = world.jobs["waiting-1"]
    await world.raw.hset(world.keys.jobs, bad, b"0|1|0|x|1|{}")
    status, text = await world.get("/api/jobs")
    listed = json.loads(text)["data"]
    assert status == 200 and world.jobs["waiting-0"] in [j["job_id"] for j in listed["jobs"]]
    assert [words for words in listed["damaged"] if bad in words]
    status, text = await world.get(f"/api/jobs/{bad}")
    assert status == 409 and f"job '{bad}' in Redis is damaged" in text


async def test_a_file_name_that_is_too_long_is_not_told_as_redis_that_is_away(world: World) -> None:
    status, text = await world.get(f"/api/jobs/{world.jobs['done']}/artifacts/{'x' * 300}")
    assert status == 404 and "Redis" not in text, text


async def test_the_next_job_is_numbered_after_all_others(world: World) -> None:
    """Its counter was no number, so that no job could be queued."""
    await world.raw.set(world.keys.jobs_seq, b"a stranger's")
    queue = Queue(world.r, world.keys)
    with pytest.raises(rexc.ResponseError):
        await queue.submit(job())
    damaged = await contract.look(world.r, world.keys, FLEET)
    assert [d.key for d in damaged] == [world.keys.jobs_seq]
    await contract.quarantine(world.r, world.keys, FLEET, damaged)
    first = await queue.submit(job(id="first"))
    page = await queue.list(limit=1)
    assert [j.id for j in page.jobs] == [first.job_id]


async def test_who_acts_reads_nothing_out_of_a_key_of_another_type(world: World) -> None:
    """A tolerant client is for who shows: what is missing may be acted on."""
    await world.raw.delete("machines")
    await world.raw.lpush("machines", b"x")
    with pytest.raises(rexc.ResponseError, match="WRONGTYPE"):
        await read_reports(world.r, world.keys)
    shows = client(world.url, tolerant=True)
    assert (await read_reports(shows, world.keys)).machines == {}
    await shows.aclose()
