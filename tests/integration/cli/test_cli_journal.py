"""emp journal, explain, pause, resume and drain, and the same of the API, on a real Redis."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from emp_orch.fleet.journal.entries import Entry
from emp_orch.fleet.model.observed import ProgramReport, ProgramState, WorkerStatus
from emp_orch.fleet.policy.memory import Memory
from emp_orch.fleet.round import Inputs, decide
from emp_orch.store.fleet import journal, rounds
from emp_orch.store.fleet.journal_reads import Wanted, page
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.fleet.requests import Once, Verb, pending
from emp_orch.store.fleet.status import BreakerStatus, FleetStatus, read_status, write_status
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports.reports import forget_worker
from support.fleet.fleets import SIMULATION, look, one, report, wish
from support.http.stack import FLEET, Process, Producer, Stack, environment, eventually, fleet_of

KEY = "program-fatal/m1/comfyui-gpu1"
OPERATION = "start-program/m1/comfyui-gpu1"


def run(stack: Stack, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "emp_orch", "-C", str(stack.layout.root), *args]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=environment())


def ok(stack: Stack, *args: str) -> str:
    done = run(stack, *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
async def bare(new_http_stack: Callable[..., Stack]) -> Stack:
    """A folder with a Redis, and no daemon."""
    stack = new_http_stack()
    stack.start_redis()
    return stack


@pytest.fixture
async def writer(bare: Stack) -> Any:
    redis = bare.client()
    yield Producer(redis, Keys())
    await redis.aclose()


async def write(producer: Producer, *entries: Entry) -> None:
    await journal.write(producer.redis, producer.keys, await producer.mandate(), list(entries))


def opened(**more: Any) -> Entry:
    return (
        "drift_opened",
        {
            "key": KEY,
            "kind": "program-fatal",
            "machine_id": "m1",
            "subject": "comfyui-gpu1",
            "desired": "RUNNING",
            "observed": "FATAL",
            "cause": "exited too quickly",
            "origin": "emp.yaml:8:3",
            "detected_after_ms": 40,
            **more,
        },
    )


def repaired() -> tuple[Entry, ...]:
    about = {"operation": OPERATION, "machine_id": "m1"}
    return (
        opened(),
        ("decision", {"key": KEY, "machine_id": "m1", "operation": OPERATION, "decision": "run", "next_ms": None}),
        ("operation_begun", {**about, "text": "start program m1 comfyui-gpu1  (start): it is FATAL"}),
        ("operation_sent", about),
        ("operation_ended", {**about, "outcome": "done"}),
        ("drift_closed", {**opened()[1], "healed_after_ms": 1_200}),
    )


async def calls(producer: Producer, command: str) -> int:
    """How often Redis was sent this command."""
    stats = await producer.redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# -- the journal


async def test_the_journal_filtered_and_as_json(bare: Stack, writer: Producer) -> None:
    assert run(bare, "journal").stderr == "the journal is empty\n"
    assert json.loads(ok(bare, "journal", "--json")) == []
    await write(
        writer, *repaired(), ("paused", {"machine_id": "", "scope": "fleet", "reason": "forged\nline", "by": "x"})
    )
    lines = ok(bare, "journal").splitlines()
    assert [line.split("  ")[1].strip() for line in lines] == [
        *("drift opened", "decided", "begun", "sent", "ended", "drift closed", "paused")
    ]
    assert "forged\\nline (by x)" in lines[-1]
    assert len(ok(bare, "journal", "-n", "2").splitlines()) == 2
    assert len(ok(bare, "journal", "--machine", "m1", "--since", "1h").splitlines()) == 6
    assert ok(bare, "journal", "--machine", "m2") == ""
    assert len(ok(bare, "journal", "--kind", "program-fatal").splitlines()) == 3
    found = json.loads(ok(bare, "journal", "--type", "drift_closed", "--type", "paused", "--json"))
    assert [e["type"] for e in found] == ["drift_closed", "paused"]
    assert found[0]["data"]["healed_after_ms"] == 1_200
    for bad, said in (
        (("--since", "noon"), "is no age"),
        (("--type", "x"), "there is no 'x'"),
        (("--kind", "y"), "'y'"),
    ):
        done = run(bare, "journal", *bad)
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (2, True, False)


async def test_the_journal_is_followed(bare: Stack, writer: Producer) -> None:
    await write(writer, *repaired())
    argv = [sys.executable, "-m", "emp_orch", "-C", str(bare.layout.root), "journal", "-f", "-n", "1", "--json"]
    follower = Process([*argv, "--kind", "program-fatal"], bare.layout.log("follower"), bare.layout.root)
    try:

        async def begun() -> bool:
            return "drift_closed" in follower.text

        await eventually(begun, "the follower shows the past")
        before = await calls(writer, "xread")
        await write(writer, ("paused", {"reason": "x"}), opened(cause="again"))

        async def follows() -> bool:
            return "again" in follower.text

        await eventually(follows, "the follower prints what comes")
        assert await calls(writer, "xread") - before <= 3, "Redis tells; nobody polls"
        lines = [json.loads(line) for line in follower.text.splitlines()]
        assert [e["type"] for e in lines] == ["drift_closed", "drift_opened"]
    finally:
        follower.stop()


def entry_order(entry_id: str) -> tuple[int, int]:
    """Where an entry stands in its stream: milliseconds, then the count within one."""
    ms, count = entry_id.split("-")
    return int(ms), int(count)


async def test_what_is_read_of_the_journal_is_bounded(bare: Stack, writer: Producer) -> None:
    many: list[Entry] = [("decision", {"key": f"a/m{n % 3}/x", "machine_id": f"m{n % 3}"}) for n in range(21_500)]
    await write(writer, ("breaker_opened", {"reason": "the first"}), *many)
    kept = await writer.redis.xlen(writer.keys.journal(FLEET))
    assert kept <= 20_200
    before = await calls(writer, "xrevrange")
    assert (await page(writer.redis, writer.keys, FLEET, Wanted(machine_id="nobody"), 10)).entries == ()
    assert 40 <= await calls(writer, "xrevrange") - before <= 45
    found = await page(writer.redis, writer.keys, FLEET, Wanted(machine_id="m1"), 700)
    assert len(found.entries) == 700 and found.more == found.entries[0].id
    earlier = await page(writer.redis, writer.keys, FLEET, Wanted(machine_id="m1"), 700, before=found.more)
    assert entry_order(earlier.entries[-1].id) < entry_order(found.entries[0].id)
    assert {e.data["machine_id"] for e in (*found.entries, *earlier.entries)} == {"m1"}
    assert "the first" not in ok(bare, "journal", "--type", "breaker_opened", "--json")


async def test_the_api_s_journal(api: aiohttp.ClientSession, producer: Producer) -> None:
    await write(producer, *repaired(), ("drained", {"machine_id": "m2", "scope": "m2", "reason": "x", "by": "ann"}))

    async def get(query: str) -> tuple[list[dict[str, Any]], str | None]:
        async with api.get(f"/api/journal{query}") as response:
            body = await response.json()
            assert response.status == 200, body
            return body["data"], body["more"]

    every, more = await get("")
    assert (len(every), more) == (7, None)
    newest, more = await get("?limit=3")
    assert [e["type"] for e in newest] == ["operation_ended", "drift_closed", "drained"] and more == newest[0]["id"]
    before, more = await get(f"?limit=4&before={more}")
    assert (before[0]["type"], more) == ("drift_opened", None)
    assert [*before, *newest] == every
    after, _ = await get(f"?after={every[4]['id']}")
    assert after == every[5:]
    # Redis refuses to look there, which is no reason to say that it is away.
    for end in ("before=0-0", "before=000-00", f"after={2**64 - 1}-{2**64 - 1}"):
        assert await get(f"?{end}") == ([], None)
    assert [e["type"] for e in (await get("?type=drained,drift_closed&since=1h"))[0]] == ["drift_closed", "drained"]
    assert len((await get("?machine=m1&kind=program-fatal"))[0]) == 3
    for bad in (
        "?limit=0",
        "?since=x",
        "?type=x",
        "?kind=x",
        "?before=x",
        "?machine=../x",
        "?mashine=m1",
        "?before=1-0&after=1-0",
    ):
        async with api.get(f"/api/journal{bad}") as response:
            assert response.status == 400, bad


# -- replay


async def record(producer: Producer, *, plan: tuple[str, ...] | None = None) -> None:
    m = one([SIMULATION])
    program = next(p.name for p in m.programs if p.service == "simulation" and not p.kind.once)
    programs = {**report(m).report.programs, program: ProgramReport(state=ProgramState.FATAL)}
    inputs = Inputs(
        desired=wish(m), observed=look(m, machines={m.id: report(m, programs=programs)}), memory=Memory(), jitter=0.3
    )
    done = decide(inputs)
    told = plan or tuple(o.text for o in done.operations)
    kept = rounds.Recorded(inputs=inputs, plan=told, run=tuple(o.key for o in done.decision.run))
    await rounds.record(producer.redis, producer.keys, await producer.mandate(), rounds.pack(kept))


async def test_recorded_rounds_are_decided_again(bare: Stack, writer: Producer) -> None:
    none = run(bare, "journal", "--replay")
    assert (none.returncode, "no round is recorded" in none.stderr) == (1, True)
    for _ in range(20):
        await record(writer)
    lines = ok(bare, "journal", "--replay", "-n", "19").splitlines()
    assert len(lines) == 19 and all("  same  generation 1, 1 differences, begun: start-program/m/" in s for s in lines)
    before = await calls(writer, "xadd")
    await writer.redis.xadd(writer.keys.rounds(FLEET), {"round": "gibberish", "version": "0.0.1"})
    with_unread = run(bare, "journal", "--replay")
    assert with_unread.returncode == 0
    assert "cannot be read: emp 0.0.1 wrote it" in with_unread.stdout.splitlines()[-1]
    await record(writer, plan=("stop the world",))
    differs = run(bare, "journal", "--replay", "-n", "2")
    assert differs.returncode == 1
    assert "DIFFERS" in differs.stdout and "    then  stop the world" in differs.stdout
    assert differs.stderr.strip() == "0 of 2 rounds the same, 1 DIFFER, 1 cannot be read by this version"
    (_, last) = json.loads(run(bare, "journal", "--replay", "-n", "2", "--json").stdout)
    assert (last["same"], last["only_then"]) == (False, ["stop the world"])
    assert run(bare, "journal", "--replay", "-f").returncode == 2
    assert await calls(writer, "xadd") - before == 2, "replaying writes nothing"


# -- explain


async def test_a_drift_is_explained_while_it_stands_and_after(
    http_stack: Stack, api: aiohttp.ClientSession, producer: Producer
) -> None:
    await producer.apply(fleet_of("m1"))
    await producer.status()
    assert ok(http_stack, "explain") == "nothing differs\n"
    await write(producer, *repaired(), *repaired()[:3])
    item = await producer.drift("m1", "comfyui-gpu1", held="backoff after 2 attempts", hold="backoff")
    other = await producer.drift("m1", "comfyui-gpu0")
    await producer.status(item, other)
    choose = run(http_stack, "explain")
    assert choose.returncode == 2
    assert "2 drifts are meant by that; choose one:" in choose.stderr and f"emp explain {KEY}" in choose.stderr
    for words in (["m1", "comfyui-gpu1"], ["gpu1"], [KEY]):
        told = ok(http_stack, "explain", *words)
        assert told.startswith("program-fatal of comfyui-gpu1 on m1: stands\n"), told
    for part in (
        "  waits     backoff after 2 attempts; next ",
        "start program m1 comfyui-gpu1: no word yet",
        "healed after 1s by start program m1 comfyui-gpu1",
        "  you can   `emp logs machine-m1/comfyui-gpu1` shows what it said",
        f"  key       {KEY}",
    ):
        assert part in told, told
    story = json.loads(ok(http_stack, "explain", "gpu1", "--json"))["drift"]
    async with api.get(f"/api/drift/{KEY}") as response:
        assert (await response.json())["data"] == story
    assert (story["stands"], story["times"], story["attempts"], story["hold"]) == (True, 2, 2, "backoff")
    assert story["earlier"][0]["healed_by"]["operation"] == OPERATION

    await write(producer, ("operation_ended", {"operation": OPERATION, "outcome": "done"}), repaired()[-1])
    await producer.status()
    assert f"closed lately:\n  emp explain {KEY}\n" in ok(http_stack, "explain")
    assert "has closed after 1s" in ok(http_stack, "explain", "gpu1")
    async with api.get(f"/api/drift/{KEY}") as response:
        closed = (await response.json())["data"]
    assert (closed["stands"], closed["can_do"], closed["last"]["healed_by"]["outcome"]) == (False, [], "done")
    unknown = run(http_stack, "explain", "m9")
    assert unknown.returncode == 2 and "no drift m9 stands" in unknown.stderr and KEY in unknown.stderr
    async with api.get("/api/drift/program-fatal/m1/other") as response:
        assert response.status == 404


# -- what people order


async def scopes(producer: Producer) -> list[str]:
    return [o.key for o in await read_overrides(producer.redis, producer.keys, FLEET)]


async def test_pause_and_resume_by_cli_and_api_are_the_same(
    http_stack: Stack, api: aiohttp.ClientSession, producer: Producer
) -> None:
    await producer.apply(fleet_of("m1", "m2"))
    told = ok(http_stack, "pause", "--reason", "disk swap")
    assert told.startswith("the reconciler is paused: disk swap (by ") and told.endswith("; emp resume ends it\n")
    ok(http_stack, "pause", "m1")
    shown = json.loads(ok(http_stack, "pause", "m1", "comfyui-gpu0", "--reason", "mine", "--json"))
    assert (shown["scope"], shown["kind"], shown["reason"]) == ("m1/comfyui-gpu0", "pause", "mine")
    by_cli = await read_overrides(producer.redis, producer.keys, FLEET)
    async with api.post(
        "/api/reconcile/pause",
        json={"machine_id": "m1", "program": "comfyui-gpu0", "reason": "mine", "by": shown["by"]},
    ) as response:
        assert response.status == 200
    by_api = await read_overrides(producer.redis, producer.keys, FLEET)
    assert [(o.key, o.words) for o in by_api] == [(o.key, o.words) for o in by_cli]
    two = await producer.events.recent(2)
    assert two[0].data == two[1].data and two[0].type == "reconcile_paused"
    assert await scopes(producer) == ["pause:fleet", "pause:m1", "pause:m1/comfyui-gpu0"]

    said = ok(http_stack, "resume", "m1")
    assert said.splitlines()[0] == "m1 is no longer paused" and "still paused: m1/comfyui-gpu0: mine (by " in said
    async with api.post("/api/reconcile/resume", json={"machine_id": "m1", "program": "comfyui-gpu0"}) as response:
        data = (await response.json())["data"]
    assert (data["lifted"], data["left"]) == (["pause:m1/comfyui-gpu0"], ["pause:fleet"])
    assert json.loads(ok(http_stack, "resume", "--json"))["lifted"] == ["pause:fleet"]
    assert ok(http_stack, "resume", "m2") == "nothing stood on m2\n"
    assert await scopes(producer) == []


async def test_names_are_checked_by_both(http_stack: Stack, api: aiohttp.ClientSession, producer: Producer) -> None:
    await producer.apply(fleet_of("m1"))
    for words, body in (
        (["m9"], {"machine_id": "m9"}),
        (["m1", "nothing"], {"machine_id": "m1", "program": "nothing"}),
    ):
        for verb in ("pause", "resume"):
            done = run(http_stack, verb, *words)
            assert (done.returncode, words[-1] in done.stderr, "Traceback" in done.stderr) == (2, True, False)
            async with api.post(f"/api/reconcile/{verb}", json=body) as response:
                assert response.status == 404 and words[-1] in (await response.json())["error"]
    assert run(http_stack, "drain", "m9").returncode == 2
    async with api.post("/api/machines/m9/drain") as response:
        assert response.status == 404
    for body in ({"program": "x"}, {"reason": "x" * 501}):
        async with api.post("/api/reconcile/pause", json=body) as response:
            assert response.status == 400
    assert run(http_stack, "pause", "--reason", "x" * 501).returncode == 2
    assert await scopes(producer) == []


async def test_an_order_on_a_machine_that_left_can_be_lifted(http_stack: Stack, producer: Producer) -> None:
    await producer.apply(fleet_of("m1", "m2"))
    ok(http_stack, "pause", "m2")
    await producer.apply(fleet_of("m1"))
    ok(http_stack, "resume", "m2")
    assert await scopes(producer) == []


async def test_resume_asks_the_leader_to_close_the_breaker(http_stack: Stack, producer: Producer) -> None:
    await producer.apply(fleet_of("m1"))
    await producer.status()
    status = await read_status(producer.redis, producer.keys, FLEET)
    assert isinstance(status, FleetStatus)
    opened_ = structs.replace(status, breaker=BreakerStatus(reason="3 of 4 failed", since_ms=status.at_ms))
    await write_status(producer.redis, producer.keys, await producer.mandate(), opened_)
    assert "the breaker is being closed" in ok(http_stack, "resume")
    ((_, request),) = await pending(producer.redis, producer.keys, FLEET, producer.seal, Once().fits)
    assert request is not None and request.verb is Verb.CLOSE_BREAKER
    (event,) = await producer.events.recent(1)
    assert event.type == "reconcile_resumed"
    assert "breaker open since" in run(http_stack, "status").stdout


async def test_a_drain_waits_for_the_workers(http_stack: Stack, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.worker("m1", 0)
    await producer.worker("m1", 1, status=WorkerStatus.BUSY, job="job-7")
    late = run(http_stack, "drain", "m1", "--reason", "GPU swap", "--timeout", "1.5")
    assert late.returncode == 4
    assert "not drained after 1.5 s: m1: m1-worker-0 idle, m1-worker-1 busy with job job-7" in late.stderr
    assert await scopes(producer) == ["drain:m1"]
    argv = [sys.executable, "-m", "emp_orch", "-C", str(http_stack.layout.root), "drain", "m1"]
    waiting = Process(argv, http_stack.layout.log("drain"), http_stack.layout.root)
    try:

        async def waits() -> bool:
            return "busy with job job-7" in waiting.text

        await eventually(waits, "the drain says who is busy with what")
        gone: dict[str, Any] = {
            name: ProgramReport(state=ProgramState.STOPPED) for name in ("redis_worker_gpu0", "redis_worker_gpu1")
        }
        await producer.machine(fleet, "m1", **gone)
        for gpu in (0, 1):
            await forget_worker(producer.redis, producer.keys, f"m1-worker-{gpu}", seen_ms=None)
        assert await asyncio.to_thread(waiting.popen.wait, 20) == 0
        assert "m1 is drained: " in waiting.text
    finally:
        waiting.stop()
    assert ok(http_stack, "resume", "m1") == "m1 is no longer drained\n"


async def test_a_lifted_drain_is_waited_for_no_longer(http_stack: Stack, producer: Producer) -> None:
    fleet = fleet_of("m1")
    await producer.apply(fleet)
    await producer.machine(fleet, "m1")
    await producer.worker("m1", 0)
    argv = [sys.executable, "-m", "emp_orch", "-C", str(http_stack.layout.root), "drain", "m1"]
    waiting = Process(argv, http_stack.layout.log("drain"), http_stack.layout.root)
    try:

        async def waits() -> bool:
            return "m1-worker-0 idle" in waiting.text

        await eventually(waits, "the drain waits")
        ok(http_stack, "resume", "m1")
        assert await asyncio.to_thread(waiting.popen.wait, 20) == 1
        assert "the drain of m1 was lifted meanwhile" in waiting.text
    finally:
        waiting.stop()


def test_without_redis_each_says_so(new_http_stack: Callable[..., Stack]) -> None:
    stack = new_http_stack()
    for args in (["journal"], ["journal", "--replay"], ["explain"], ["pause"], ["resume"], ["drain", "m1"]):
        done = run(stack, *args)
        assert (done.returncode, "Traceback" in done.stderr) == (3, False), (args, done.stderr)
