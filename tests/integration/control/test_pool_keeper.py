"""A pool follows its queue on a real engine: boxes are asked for, drained, given back; what goes wrong is told."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from emp_orch.control.pools.engine import ENDED_MARGIN_S
from emp_orch.fleet.drift.kinds import Kind
from emp_orch.fleet.model.fleet import MachineId, Member, MemberState
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.round import Round
from emp_orch.render.box import BOX_STOP_MARGIN_S
from emp_orch.store.queue.submit import Queue
from emp_orch.store.redis.client import Client, time_ms
from support.fleet.pools import RENDERS, pool
from support.pools.leader import Leader, leading
from support.redis.server import job

ONE = Override(kind=OverrideKind.SCALE, pool=RENDERS, size=1, by="ops")
NONE = structs.replace(ONE, size=0)


def drift_of(done: Round, kind: Kind) -> list[str]:
    return [i.drift.cause for i in done.items if i.drift.kind is kind]


async def empty(leader: Leader) -> None:
    """Jobs are all claimed and done."""
    await leader.r.delete(*[k async for k in leader.r.scan_iter("lane:*")])


async def test_jobs_in_it_grows_all_done_it_shrinks_to_nothing(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:
        await Queue(r, leader.keys).submit_many([job() for _ in range(5)])
        await Queue(r, leader.keys).submit(job("another-service"))
        done = await leader.until(lambda _: len(leader.engine.boxes_of) == 3)
        assert done.pools[RENDERS].why == "5 jobs wait, 1 a GPU, at most 3: 3 wanted, 0 there"
        members = await leader.all()
        assert members.keys() == leader.engine.boxes_of.keys()
        assert {m.state for m in members.values()} == {MemberState.EXPECTED}
        launch = leader.engine.launched[0]
        # More than its workers may take: its services end after them, and it says that it went.
        assert launch.stop_s >= pool().template.worker.drain_timeout_s + BOX_STOP_MARGIN_S
        assert (launch.api, launch.variables["EMP_JOIN_AS"]) == ("http://api:3331", launch.member_id)
        assert launch.token not in repr(launch)
        for member_id in members:
            await leader.join(member_id, busy=True)
        await empty(leader)
        done = await leader.round()
        assert (done.pools[RENDERS].wanted, done.pools[RENDERS].ready) == (3, 3)
        status = leader.status[RENDERS]
        assert (status.waiting, status.running, status.engine, status.order) == (0, 3, "", "")
        assert not drift_of(done, Kind.POOL_SHORT)

        first, *others = members
        await leader.report(first)
        await leader.until(lambda d: d.pools[RENDERS].there == 2)
        assert {i for i, m in (await leader.all()).items() if m.leaving_ms} == {first}
        assert first in leader.engine.boxes_of  # it drains still
        await leader.report(first)
        await leader.until(lambda _: first not in leader.engine.boxes_of)
        for member_id in others:
            await leader.report(member_id)
        await leader.until(lambda d: d.pools[RENDERS].there == 0)
        for member_id in others:
            await leader.report(member_id)
        await leader.until(lambda _: not leader.engine.boxes_of)
        await leader.until(lambda d: not d.items)
        assert not await leader.all()
        assert not await r.hkeys(leader.keys.machines) and not await r.hkeys(leader.keys.workers)
        told = [type_ for type_, _ in leader.journal]
        assert told.count("member_asked") == told.count("member_removed") == 3
        assert "pool_resized" in told
        assert not leader.failed


async def test_who_is_at_work_stays_whatever_is_ordered(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:
        await leader.until(lambda _: len(leader.engine.boxes_of) == 1, ONE)
        (only,) = leader.engine.boxes_of
        await leader.join(only, busy=True)
        done = await leader.round(NONE)
        assert (done.pools[RENDERS].wanted, done.pools[RENDERS].there) == (0, 1)
        assert only in leader.engine.boxes_of and not (await leader.all())[only].leaving_ms


async def test_what_an_engine_refuses_is_told_in_its_words_and_leaves_no_member(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(least=1, most=3)) as leader:
        leader.engine.refuses = "no node has a free gpu"
        await leader.until(lambda _: bool(leader.failed))
        assert leader.failed == ["no node has a free gpu (…)"]
        done = await leader.round()
        assert not await leader.all()
        (item,) = [i for i in done.items if i.drift.kind is Kind.POOL_SHORT]
        assert item.failed == "no node has a free gpu (…)"
        assert item.held == "backoff after 1 attempt"
        status = leader.status[RENDERS]
        assert (status.wanted, status.there, status.engine) == (1, 0, "no node has a free gpu (…)")
        leader.engine.refuses = ""
        await leader.until(lambda _: len(leader.engine.boxes_of) == 1)


async def test_a_box_that_joined_before_its_engine_failed_to_answer_stays(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:
        leader.engine.lost = leader.enter
        await leader.until(lambda _: bool(leader.engine.boxes_of), ONE)
        (only,) = leader.engine.boxes_of
        member = (await leader.all())[only]
        assert (member.state, member.leaving_ms) == (MemberState.IN, 0)
        assert not leader.failed  # what was asked for came
        assert [d["machine_id"] for type_, d in leader.journal if type_ == "member_asked"] == [only]
        await leader.report(only)
        done = await leader.until(lambda d: d.pools[RENDERS].ready == 1, ONE)
        assert not drift_of(done, Kind.POOL_SHORT) and only in leader.engine.boxes_of


async def test_a_box_that_runs_and_has_not_joined_goes_with_its_member_when_the_engine_failed(
    tmp_path: Path, r: Client
) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:

        async def nothing(_: MachineId) -> None:
            pass

        leader.engine.lost = nothing
        await leader.until(lambda _: bool(leader.failed), ONE)
        assert leader.failed == ["the way to the engine is cut"]
        assert not leader.engine.boxes_of and not await leader.all()


async def test_a_box_that_its_engine_neither_owns_up_to_nor_takes_back_may_join_still(
    tmp_path: Path, r: Client
) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:

        async def away(_: MachineId) -> None:
            leader.engine.keeps = True

        leader.engine.lost = away
        await leader.until(lambda _: bool(leader.failed), ONE)
        ((only, member),) = (await leader.all()).items()
        assert only in leader.engine.boxes_of
        assert (member.state, member.leaving_ms) == (MemberState.EXPECTED, 0)
        await leader.join(only)
        await leader.until(lambda d: d.pools[RENDERS].ready == 1, ONE)
        assert list(leader.engine.boxes_of) == [only]


async def test_an_engine_that_says_nothing_holds_up_no_other_and_nobody_is_removed(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(least=1, most=3)) as leader:
        await leader.until(lambda _: len(leader.engine.boxes_of) == 1)
        leader.engine.silent = True
        leader.engine.refuses = "the engine is away"
        two = structs.replace(ONE, size=2)
        done = await leader.until(lambda d: "engine is away" in "".join(drift_of(d, Kind.POOL_SHORT)), two)
        assert "its engine says: the engine is away" in drift_of(done, Kind.POOL_SHORT)[0]
        assert len(leader.engine.boxes_of) == 1


async def test_a_box_that_ended_goes_and_another_comes(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(least=1, most=3)) as leader:
        await leader.until(lambda _: len(leader.engine.boxes_of) == 1)
        (first,) = leader.engine.boxes_of
        await leader.engine.kill(first)
        await leader.until(lambda _: first not in leader.engine.boxes_of and len(leader.engine.boxes_of) == 1)
        reasons = [d["reason"] for type_, d in leader.journal if type_ == "member_removed"]
        assert reasons == ["its box ended: it ended with -9"]
        assert first not in await leader.all()


async def test_a_box_that_ends_as_it_was_told_is_not_nobodys_until_its_time_is_over(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:
        await leader.until(lambda _: len(leader.engine.boxes_of) == 1, ONE)
        (only,) = leader.engine.boxes_of
        leader.engine.slow = True
        engine = leader.keeper.engine(RENDERS)
        await leader.until(lambda _: bool(engine.looked.seen.boxes), ONE)
        await leader.until(lambda _: any(type_ == "member_removed" for type_, _ in leader.journal), NONE)
        assert not await leader.all() and [b.member_id for b in engine.looked.seen.boxes or ()] == [only]
        done = await leader.round(NONE)
        assert not done.items

        leader.keeper.given_back(only, -ENDED_MARGIN_S)  # its time is over
        done = await leader.round(NONE)
        assert drift_of(done, Kind.MEMBER_GONE) == [f"its engine has a box for {only}, which is no member any more"]
        leader.engine.slow = False
        await leader.until(lambda _: not leader.engine.boxes_of, NONE)


async def test_a_box_without_a_member_and_a_member_without_a_box_go(tmp_path: Path, r: Client) -> None:
    async with leading(r, tmp_path, pool(most=3)) as leader:
        await leader.round()
        orphan, never = MachineId("renders-orphan"), MachineId("renders-never")
        long_ago_ms = await time_ms(r) - 120_000
        added = Member(id=never, pool=RENDERS, state=MemberState.EXPECTED, born_ms=long_ago_ms)
        assert await leader.members.add(added, most=3)
        await leader.engine.start(orphan)
        await leader.until(lambda _: orphan not in leader.engine.boxes_of, ONE)
        await leader.until(lambda d: d.pools[RENDERS].there == 1 and not drift_of(d, Kind.MEMBER_GONE), ONE)
        (new,) = await leader.all()
        assert new not in (orphan, never) and new in leader.engine.boxes_of
