"""The store's promises beside the queue's, on Redis and on Valkey."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import structs

from emp_orch.errors import Unreachable
from emp_orch.fleet.model.fleet import MachineId, ProgramName, WorkerId
from emp_orch.fleet.model.observed import (
    MachineReport,
    MachineStatus,
    ProgramReport,
    ProgramState,
    WorkerReport,
    WorkerStatus,
)
from emp_orch.machine.agent.commands import CommandFollower
from emp_orch.machine.home.trust import Floor, Trust
from emp_orch.seals import KEY_BYTES, CommandKey, Seal, Stamp, for_command
from emp_orch.store.fleet import commands, requests
from emp_orch.store.fleet.commands import Command, CommandVerb, StampedCommand
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.leader import Leadership, Mandate
from emp_orch.store.redis.client import Client, WriteRefused, connected, time_ms
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports import reports
from support.redis.server import Server, until

KEYS = Keys("t:")
SEAL = Seal(bytes(KEY_BYTES))
M = MachineId("m1")
W = WorkerId("m1-worker-0")
KEY = CommandKey(fleet="f", machine=M, key="ab" * KEY_BYTES)


def machine(status: MachineStatus = MachineStatus.READY) -> MachineReport:
    return MachineReport(
        machine_id=M,
        status=status,
        boot_id="b1",
        generation=1,
        config_hash="abc",
        num_gpus=1,
        programs={ProgramName("simulation"): ProgramReport(state=ProgramState.RUNNING, pid=7)},
        host="here",
        agent_version="0",
        started_ms=1,
    )


def worker() -> WorkerReport:
    return WorkerReport(
        worker_id=W,
        machine_id=M,
        gpu=0,
        status=WorkerStatus.IDLE,
        capabilities={"services": ["simulation"]},
        connector_statuses={},
        started_ms=1,
    )


# -- reports


async def test_a_report_is_read_back_with_the_time_of_redis(r: Client) -> None:
    before = await time_ms(r)
    await reports.machine_writer(r, KEYS, M).write(machine())
    await reports.worker_writer(r, KEYS, W).write(worker())
    found = await reports.read_reports(r, KEYS)
    assert found.machines[M].report == machine()
    assert found.workers[W].report == worker()
    assert before <= found.machines[M].seen_ms <= found.now_ms
    assert found.malformed == ()


async def test_a_heartbeat_does_not_bring_back_a_removed_report(r: Client) -> None:
    """PRIOR-ART 2: a last word recreated a deleted record, and a phantom worker stayed for ever."""
    writer = reports.worker_writer(r, KEYS, W)
    await writer.write(worker())
    assert await reports.forget_worker(r, KEYS, W, seen_ms=None)
    put = r.register_script(reports.PUT)
    assert await put(keys=[KEYS.workers, KEYS.workers_seen], args=[W, "", ""]) == [0, None]
    assert (await reports.read_reports(r, KEYS)).workers == {}
    assert await r.zcard(KEYS.workers_seen) == 0


async def test_a_living_writer_writes_its_whole_report_again_after_redis_was_emptied(r: Client) -> None:
    writer = reports.machine_writer(r, KEYS, M)
    await writer.write(machine())
    await r.flushall()
    await writer.write(machine())
    assert (await reports.read_reports(r, KEYS)).machines[M].report == machine()


async def test_who_reported_since_is_not_forgotten(r: Client) -> None:
    writer = reports.worker_writer(r, KEYS, W)
    await writer.write(worker())
    seen_ms = (await reports.read_reports(r, KEYS)).workers[W].seen_ms

    async def later() -> bool:
        await writer.write(worker())
        return (await reports.read_reports(r, KEYS)).workers[W].seen_ms > seen_ms

    await until(later)
    assert not await reports.forget_worker(r, KEYS, W, seen_ms=seen_ms)
    assert W in (await reports.read_reports(r, KEYS)).workers


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", "{}", b"\xff\xfe", '{"machine_id": "m1"}', '{"machine_id": 7}'],
)
async def test_a_malformed_report_is_shown_and_hides_no_other(r: Client, document: str | bytes) -> None:
    await reports.machine_writer(r, KEYS, M).write(machine())
    await r.hset(KEYS.machines, "bad", document)
    found = await reports.read_reports(r, KEYS)
    assert list(found.machines) == [M]
    assert [(m.kind, m.id) for m in found.malformed] == [("machine", "bad")]


async def test_a_report_under_another_name_is_malformed(r: Client) -> None:
    await reports.machine_writer(r, KEYS, "other").write(machine())
    found = await reports.read_reports(r, KEYS)
    assert found.machines == {}
    assert found.malformed[0].error == "its document names 'm1'"


# -- a client that only reads


async def test_the_read_only_client_refuses_every_write(r: Client, server: Server) -> None:
    async with connected(server.url, read_only=True) as reader:
        for words in (["SET", "t:a", "1"], ["DEL", "t:a"], ["EVAL", "return 1", "0"], ["XADD", "t:e", "*", "a", "1"]):
            with pytest.raises(WriteRefused, match=f"{words[0]} was refused"):
                await reader.execute_command(*words)
        with pytest.raises(WriteRefused):
            async with reader.pipeline(transaction=False) as pipe:
                pipe.set("t:a", "1")
                await pipe.execute()
        assert await reader.get("t:a") is None
    assert await r.dbsize() == 0


async def test_an_unreachable_redis_is_named_without_its_password() -> None:
    with pytest.raises(Unreachable) as caught:
        async with connected("redis://user:hunter2@127.0.0.1:1/0?password=hunter2"):
            pass
    assert "redis://***@127.0.0.1:1/0" in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.hint


# -- events


async def test_events_are_followed_from_an_id(r: Client) -> None:
    events = Events(r, KEYS)
    first = await events.append("a", n=1)
    await events.append("b", n=2)
    assert [(e.type, e.data["n"]) for e in await events.since(first)] == [("b", 2)]
    waiting = asyncio.create_task(events.since(await events.latest_id(), block_ms=5_000))
    await events.append("c", n=3)
    assert [e.type for e in await waiting] == ["c"]


async def test_who_follows_on_a_connection_of_its_own_is_told_the_same(r: Client) -> None:
    events = Events(r, KEYS)
    first = await events.append("a", n=1)
    async with events.apart() as apart:
        assert await apart.since(first) == []
        waiting = asyncio.create_task(apart.since(first, block_ms=5_000))
        await events.append("b", n=2, text="Grüße")
        assert [(e.type, e.data["n"]) for e in await waiting] == [("b", 2)]
        await events.append("c")
        assert await apart.since(first) == await events.since(first)
        assert len(await apart.since("0", count=2)) == 2


async def test_a_damaged_event_is_shown_as_malformed(r: Client) -> None:
    await r.xadd(KEYS.events, {"nonsense": "x"})
    (event,) = await Events(r, KEYS).recent(5)
    assert event.type == "malformed"


async def test_machine_events_reach_the_old_channel(r: Client) -> None:
    async with r.pubsub() as subscriber:
        await subscriber.subscribe(KEYS.startup_channel)

        async def subscribed() -> bool:
            return dict(await r.pubsub_numsub(KEYS.startup_channel)).get(KEYS.startup_channel) == 1

        await until(subscribed)
        await Events(r, KEYS).append_machine("machine_startup", machine_id=M, phase="ready")

        async def message() -> str | None:
            got = await subscriber.get_message(ignore_subscribe_messages=True, timeout=0.1)
            return got["data"] if got else None

        assert await until(message) == '{"type":"machine_startup","machine_id":"m1","phase":"ready"}'


# -- requests


async def test_requests_stand_until_they_are_answered(r: Client) -> None:
    asked = requests.Request(verb=requests.Verb.RESTART_MACHINE, machine_id="m1", by="cli")
    request_id = await requests.ask(r, KEYS, "f", asked, SEAL)
    await r.xadd(KEYS.requests("f"), {"request": "nonsense"})
    once = requests.Once()
    for _ in range(2):
        first, second = await requests.pending(r, KEYS, "f", SEAL, once.fits)
        assert first[0] == request_id and first[1] is not None
        assert structs.replace(first[1], once="", at_ms=0) == asked
        assert second[1] is None
    await requests.answer(r, KEYS, "f", request_id, error="")
    await requests.answer(r, KEYS, "f", second[0], error="it does not fit")
    assert await requests.pending(r, KEYS, "f", SEAL, once.fits) == []
    told = [(e.data["request_id"], e.data["ok"]) for e in await Events(r, KEYS).recent(5)]
    assert told == [(request_id, True), (second[0], False)]


# -- commands, as the agent follows them


class Machine:
    """The agent's side of the command stream, with what it carried out."""

    def __init__(self, r: Client, *, last: str, epoch: int = 0) -> None:
        self.done: list[StampedCommand] = []
        self.caught_up = 0
        self.trust = Trust(lambda: KEY, Floor(key=KEY.seal.name, stamp=Stamp(epoch=epoch)))
        self.commands = CommandFollower(
            r,
            KEYS,
            M,
            last=last,
            trust=self.trust,
            catch_up=self._catch_up,
            carry_out=self._carry_out,
            remember=lambda last: None,
        )

    async def _catch_up(self) -> None:
        self.caught_up += 1

    async def _carry_out(self, command: StampedCommand) -> None:
        self.done.append(command)


async def _order(r: Client, epoch: int, seq: str) -> None:
    """A command as a leader of that epoch would have sent it, had Redis not refused the older one."""
    count = ord(seq)
    command = StampedCommand(epoch=epoch, count=count, seq=seq, verb=CommandVerb.RESTART_PROGRAM, program="simulation")
    sealed = KEY.seal.sealed(for_command("f", M), msgspec.json.encode(command))
    await r.xadd(KEYS.commands(M), {"command": sealed})


async def _send(r: Client, mandate: Mandate, seq: str, *, count: int = 1) -> None:
    order = Command(verb=CommandVerb.APPLY_CONFIG, seq=seq)
    await commands.send(r, KEYS, mandate, M, order, seal=KEY.seal, count=count)


async def _acks(r: Client) -> list[str]:
    found: Any = await r.xrange(KEYS.acks(M))
    return [fields["ack"] for _, fields in found]


async def test_a_command_of_an_older_epoch_is_refused(r: Client) -> None:
    agent = Machine(r, last="0-0")
    for epoch, seq in ((2, "a"), (1, "b"), (2, "c")):
        await _order(r, epoch, seq)
    await r.xadd(KEYS.commands(M), {"command": KEY.seal.sealed(for_command("f", M), b'{"verb":"nonsense"}')})
    running = asyncio.create_task(agent.commands.run())

    async def told() -> list[str]:
        return [e.data["operation"] for e in await Events(r, KEYS).recent(10) if e.type == "command_done"]

    async def all_told() -> bool:
        return len(await told()) == 4

    await until(all_told)
    running.cancel()
    assert [c.seq for c in agent.done] == ["a", "c"]
    assert (await _acks(r))[1].startswith('{"seq":"b","ok":false,"error":"epoch 1 is older than 2')
    assert agent.trust.floor.stamp == Stamp(epoch=2, count=ord("c"))
    assert await told() == ["a", "b", "c", ""]


async def test_a_stream_that_ends_before_the_agents_place_is_read_anew(
    r: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emp_orch.machine.agent.commands.BLOCK_MS", 50)
    an_hour_ahead = await time_ms(r) + 3_600_000
    agent = Machine(r, last=f"{an_hour_ahead}-0", epoch=1)
    mandate = await Leadership(r, KEYS, "f", "one", ttl_ms=60_000).acquire()
    assert isinstance(mandate, Mandate)
    await _send(r, mandate, "a")
    running = asyncio.create_task(agent.commands.run())

    async def answered() -> list[str]:
        return await _acks(r)

    await until(answered)
    running.cancel()
    assert [c.seq for c in agent.done] == ["a"]


async def test_a_new_life_does_not_carry_out_commands_to_the_last(r: Client) -> None:
    mandate = await Leadership(r, KEYS, "f", "one", ttl_ms=60_000).acquire()
    assert isinstance(mandate, Mandate)
    await _send(r, mandate, "old")
    agent = Machine(r, last="")
    running = asyncio.create_task(agent.commands.run())

    async def caught_up() -> int:
        return agent.caught_up

    await until(caught_up)
    await _send(r, mandate, "new", count=2)

    async def answered() -> list[str]:
        return await _acks(r)

    await until(answered)
    running.cancel()
    assert [c.seq for c in agent.done] == ["new"]


@pytest.mark.parametrize("score", ["+inf", "-inf", "1e300", "-5"])
async def test_a_time_that_is_none_counts_as_never_heard(r: Client, score: str) -> None:
    """Anybody may have written it, and it must not blind us to the others."""
    await reports.machine_writer(r, KEYS, M).write(machine())
    await r.execute_command("ZADD", KEYS.machines_seen, score, M)
    assert (await reports.read_reports(r, KEYS)).machines[M].seen_ms == 0
