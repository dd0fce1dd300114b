"""Looking by changes finds what looking at everything does, whatever reporters, people and Redis do in between."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from msgspec import structs

from emp_orch.api.feed.changes import Follower
from emp_orch.api.feed.snapshot import Snapshot
from emp_orch.api.state import ApiStats, StateReader
from emp_orch.api.views.fleet import State
from emp_orch.fleet.desired.members import with_members
from emp_orch.fleet.model.fleet import Fleet, MachineId, Member, MemberState, PoolName
from emp_orch.fleet.model.observed import MachineStatus, WorkerStatus
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.model.runtimes import RuntimeKind
from emp_orch.fleet.pools.course import Point
from emp_orch.jobs.document.submission import parse_submission
from emp_orch.store.fleet.overrides import lift_overrides, put_override
from emp_orch.store.fleet.pools.courses import write_courses
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.fleet.status import PoolStatus
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from emp_orch.store.reports import changes
from emp_orch.store.reports.reports import forget_machine, forget_worker
from support.fleet.pools import pool as pool_of
from support.http.deltas import Mirror, parted, steady
from support.http.stack import FLEET, Producer, fleet_of

STEPS = 60
MACHINES = ("m1", "m2", "m3")
RENDERS = PoolName("renders")
MEMBERS = tuple(MachineId(f"renders-{n}") for n in range(4))


def with_pool(fleet: Fleet) -> Fleet:
    template = structs.replace(fleet_of("x").machines[0], id=MachineId(""), runtime=RuntimeKind.EXTERNAL, num_gpus=1)
    return structs.replace(fleet, pools={RENDERS: pool_of(RENDERS, template=template)})


FLEET_OF_ALL = with_pool(fleet_of(*MACHINES))


class Scene:
    """A fleet's Redis, somebody who does things to it, and somebody who follows; each look by changes is counted."""

    def __init__(self, r: Client, seed: int) -> None:
        self.r = r
        self.rng = random.Random(seed)
        self.keys = Keys()
        self.producer = Producer(r, self.keys)
        self.queue = Queue(r, self.keys)
        self.reader = StateReader(r, self.keys, FLEET, self.queue, ApiStats())
        self.members = Members(r, self.keys, FLEET, lambda: self.producer.seal)
        self.jobs_changed = True
        self.emptied = 0
        self.follower = Follower(r, self.keys, self.reader, self.ask_jobs)
        self.snapshot, self.mirror = Snapshot(), Mirror()

    def ask_jobs(self) -> bool:
        changed, self.jobs_changed = self.jobs_changed, False
        return changed

    async def whole(self) -> State:
        return await StateReader(self.r, self.keys, FLEET, self.queue, ApiStats()).read()

    async def look(self) -> None:
        delta = self.snapshot.take(await self.follower.look(), "")
        if self.mirror.revision is None:
            self.mirror.snapshot({"revision": self.snapshot.revision, "data": json.loads(self.snapshot.whole())})
        elif delta is not None:
            self.mirror.delta(json.loads(delta))

    async def agrees(self) -> None:
        await self.look()
        truth = steady(*parted(json.loads(msgspec.json.encode(await self.whole()))))
        assert self.mirror.known == truth
        assert steady(*parted(json.loads(self.snapshot.whole()))) == truth

    # what happens

    async def machine(self) -> None:
        statuses = (MachineStatus.READY, MachineStatus.DRAINING)
        await self.producer.machine(FLEET_OF_ALL, self.rng.choice(MACHINES), status=self.rng.choice(statuses))

    async def worker(self) -> None:
        statuses = (WorkerStatus.IDLE, WorkerStatus.BUSY)
        await self.producer.worker(self.rng.choice(MACHINES), self.rng.randrange(2), status=self.rng.choice(statuses))

    async def forget(self) -> None:
        machine = self.rng.choice(MACHINES)
        if self.rng.random() < 0.4:
            await forget_machine(self.r, self.keys, machine, seen_ms=None)
        else:
            await forget_worker(self.r, self.keys, f"{machine}-worker-{self.rng.randrange(2)}", seen_ms=None)

    async def silence(self) -> None:
        await self.producer.silence(self.rng.choice(MACHINES), 60_000)
        worker = f"{self.rng.choice(MACHINES)}-worker-0"
        await self.r.zadd(self.keys.workers_seen, {worker: 1_000}, xx=True)

    async def heard(self) -> None:
        """A heartbeat: the document is as it was."""
        now, _ = await self.r.time()
        await self.r.zadd(self.keys.machines_seen, dict.fromkeys(MACHINES, now * 1000), xx=True)

    async def damage(self) -> None:
        """By somebody who writes as reporters do, and names it as changed."""
        which = f"{self.rng.choice(MACHINES)}-worker-0"
        await self.r.hset(self.keys.workers, which, "{not json")
        await self.r.zadd(self.keys.reports_changed, {f"workers {which}": await self.r.incr(self.keys.reports_seq)})

    async def status(self) -> None:
        subjects = self.rng.sample(("comfyui-gpu0", "comfyui-gpu1", "simulation"), self.rng.randrange(4))
        drift = [await self.producer.drift("m1", s, attempts=self.rng.randrange(2)) for s in subjects]
        await self.producer.status(*drift)

    async def apply(self) -> None:
        fleet = fleet_of(*self.rng.sample(MACHINES, self.rng.randrange(1, 4)))
        await self.producer.apply(with_pool(fleet) if self.rng.random() < 0.8 else fleet)

    async def member(self) -> None:
        """One comes, is changed, or is forgotten."""
        which = self.rng.choice(MEMBERS)
        known = await self.members.get(which)
        if known is None:
            await self.members.add(Member(id=which, pool=RENDERS, state=MemberState.EXPECTED, born_ms=1), most=9)
        elif self.rng.random() < 0.5:
            await self.members.remove(known)
        else:
            await self.members.change(known, state=self.rng.choice(tuple(MemberState)), why=str(self.rng.random()))

    async def reports(self) -> None:
        """A member, or one that is none any more."""
        which = self.rng.choice(MEMBERS)
        member = Member(id=which, pool=RENDERS, state=MemberState.IN, born_ms=1)
        await self.producer.machine(with_members(FLEET_OF_ALL, (member,)), which)
        await self.producer.worker(which, 0)

    async def pool(self) -> None:
        """A leader looks at the pool, and perhaps adds to what it knows of its last day."""
        at_ms, waiting = self.rng.choice((0, 1_000, 2_000)), self.rng.randrange(3)
        mandate = await self.producer.mandate()
        if at_ms:
            points = tuple(Point(ms, waiting, 0, 1, 2) for ms in range(at_ms, at_ms + 3))
            await write_courses(self.r, self.keys, mandate, {RENDERS: points})
            at_ms = await self.r.incr("the-test:courses")
        said = PoolStatus(provider="command", least=0, most=40, wanted=2, there=1, waiting=waiting)
        await self.producer.status(pools={RENDERS: said}, courses_ms=at_ms)

    async def pause(self) -> None:
        if self.rng.random() < 0.5:
            await put_override(
                self.r,
                self.keys,
                FLEET,
                Override(kind=OverrideKind.PAUSE, machine_id=MachineId("m1"), reason="why", by="me"),
                self.producer.seal,
            )
        else:
            await lift_overrides(self.r, self.keys, FLEET, scope="m1")

    async def job(self) -> None:
        await self.queue.submit(parse_submission({"service": "simulation"}))
        self.jobs_changed = True

    async def empty(self) -> None:
        await self.r.flushall()
        # The counter begins at the time; as if this were seconds after the last time, and not milliseconds.
        now_s, _ = await self.r.time()
        self.emptied += 1
        await self.r.set(self.keys.reports_seq, (now_s + self.emptied) * 1_000_000)
        self.jobs_changed = True

    @property
    def deeds(self) -> list[Callable[[], Awaitable[None]]]:
        often = [self.machine, self.worker, self.worker, self.heard, self.silence, self.status]
        often += [self.member, self.reports, self.pool]
        return [*often, *often, self.forget, self.damage, self.apply, self.pause, self.job, self.empty]


@pytest.mark.parametrize("seed", range(4))
async def test_looks_by_changes_agree_with_looks_at_everything(r: Client, seed: int) -> None:
    scene = Scene(r, seed)
    await scene.apply()
    for _ in range(STEPS):
        for _ in range(scene.rng.randrange(1, 4)):
            await scene.rng.choice(scene.deeds)()
        await scene.agrees()


async def test_a_look_by_changes_reads_what_changed(r: Client) -> None:
    scene = Scene(r, 0)
    await scene.producer.apply(FLEET_OF_ALL)
    for machine in MACHINES:
        await scene.producer.machine(FLEET_OF_ALL, machine)
        await scene.producer.worker(machine, 0)
    await scene.look()
    await r.config_resetstat()
    await scene.producer.worker("m2", 0, status=WorkerStatus.BUSY)
    seen = await scene.follower.look()
    assert list(seen.workers) == ["m2-worker-0"]
    assert not seen.machines
    calls = await r.info("commandstats")
    assert "cmdstat_hgetall" not in calls or calls["cmdstat_hgetall"]["calls"] == 1  # of the overrides
    assert calls["cmdstat_hmget"]["calls"] == 1


async def test_a_member_that_comes_or_goes_is_a_change_and_no_look_at_everything(r: Client) -> None:
    scene = Scene(r, 0)
    await scene.producer.apply(FLEET_OF_ALL)
    for which in MEMBERS:
        await scene.members.add(Member(id=which, pool=RENDERS, state=MemberState.IN, born_ms=1), most=9)
    await scene.producer.machine(FLEET_OF_ALL, "m1")
    await scene.agrees()
    gone = await scene.members.get(MEMBERS[1])
    assert gone is not None and await scene.members.remove(gone)
    new = MachineId("renders-new")
    assert await scene.members.add(Member(id=new, pool=RENDERS, state=MemberState.EXPECTED, born_ms=1), most=9)
    await scene.producer.machine(FLEET_OF_ALL, "m1")
    await r.config_resetstat()
    seen = await scene.follower.look()
    assert {i: m and m.state for i, m in seen.members.items()} == {MEMBERS[1]: None, "renders-new": "expected"}
    assert {i: m and m.id for i, m in seen.desired.items()} == {MEMBERS[1]: None, "renders-new": new}
    assert "m1" in seen.machines and not {"members", "desired", "machines"} & seen.whole
    calls = await r.info("commandstats")
    assert calls["cmdstat_hscan"]["calls"] == 1 and calls["cmdstat_hmget"]["calls"] == 2
    delta = json.loads(scene.snapshot.take(seen, "") or b"{}")
    assert delta["gone"] == {"desired": [MEMBERS[1]], "members": [MEMBERS[1]]}
    assert list(delta["set"]["members"]) == ["renders-new"]


async def test_more_changes_than_are_told_are_read_whole(r: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(r, 0)
    await scene.producer.apply(FLEET_OF_ALL)
    await scene.agrees()
    monkeypatch.setattr(changes, "MAX_CHANGES", 3)
    for machine in MACHINES:
        await scene.producer.machine(FLEET_OF_ALL, machine)
        await scene.producer.worker(machine, 0)
    await scene.agrees()
    assert len(scene.mirror.tables["workers"]) == 3
