"""A pool that gets another engine: boxes of the former one are drained and given back, also by another leader."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from emp_orch.fleet.model.fleet import MachineId, Pool
from emp_orch.fleet.pools.differences import FORMER
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.runtimes.providers.registry import load
from emp_orch.store.fleet.generations import Generation, publish
from emp_orch.store.fleet.pools.members import Members
from emp_orch.store.fleet.pools.retired import LATE_MS, RetiredPools
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import SIMULATION, fleet
from support.fleet.pools import RENDERS, member, pool
from support.pools import boxes_program
from support.pools.leader import Leader, leading


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path
    for path in tmp_path.glob("*/*/*.pid"):
        if boxes_program.alive(path):
            with suppress(ProcessLookupError):
                os.kill(int(path.read_text()), signal.SIGKILL)


def of_engine(folder: Path, name: str, most: int = 4, **options: Any) -> Pool:
    """A pool of two boxes at least, whose engine's state is in a folder of `name`."""
    program = [sys.executable, str(boxes_program.__file__), str(folder / name), "sleep", "1000"]
    return pool(least=2, most=most, options={"command": program, "every": "0s", **options})


def boxes(folder: Path, name: str) -> set[MachineId]:
    """Whose boxes run at the engine `name`."""
    found = (folder / name).glob("*/*.pid")
    return {MachineId(boxes_program.member_of(path)) for path in found if boxes_program.alive(path)}


async def two_in(leader: Leader, folder: Path, name: str) -> list[MachineId]:
    await leader.until(lambda _: len(boxes(folder, name)) == 2)
    return sorted(boxes(folder, name))


async def gone_from(leader: Leader, folder: Path, name: str, *idle: MachineId) -> None:
    """Until none of `idle` is a member, each of which does as it is told."""
    await leader.until(lambda _: all(m in leaving(leader) for m in idle))
    for one in idle:
        await leader.report(one)
    await leader.until(lambda _: not boxes(folder, name) & set(idle))


def leaving(leader: Leader) -> set[MachineId]:
    assert leader.desired is not None
    return {i for i, m in leader.desired.members.items() if m.leaving_ms}


async def test_boxes_of_the_former_engine_drain_and_go_and_others_are_asked_of_the_new_one(
    folder: Path, r: Client
) -> None:
    async with leading(r, folder, of_engine(folder, "before"), load=load) as leader:
        idle, busy = await two_in(leader, folder, "before")
        await leader.join(idle)
        await leader.join(busy, busy=True)
        leader.apply(of_engine(folder, "now"))
        new = await two_in(leader, folder, "now")
        assert not {idle, busy} & set(new)
        await gone_from(leader, folder, "before", idle)
        await leader.report(busy, busy=True)
        assert busy in boxes(folder, "before")
        assert busy in leaving(leader) and (await leader.all())[busy].why == FORMER
        await leader.report(busy)
        await leader.until(lambda _: not boxes(folder, "before"))
        await leader.until(lambda _: not list((folder / "before").glob("*/*.pid")))
        assert (await leader.all()).keys() == set(new) == boxes(folder, "now")
        assert not leader.failed


async def test_settings_that_find_the_same_boxes_send_nobody_away(folder: Path, r: Client) -> None:
    async with leading(r, folder, of_engine(folder, "one"), load=load) as leader:
        both = await two_in(leader, folder, "one")
        for one in both:
            await leader.join(one)
        leader.apply(of_engine(folder, "one", env={"REGION": "eu"}))
        asked = folder / "one" / "requests"
        so_far = asked.read_text().count("list")
        await leader.until(lambda _: asked.read_text().count("list") >= so_far + 6)
        assert not leaving(leader)
        assert sorted(boxes(folder, "one")) == both == sorted(await leader.all())


async def test_an_engine_that_does_not_answer_yet_keeps_those_of_the_former_one(folder: Path, r: Client) -> None:
    async with leading(r, folder, of_engine(folder, "before", most=2), load=load) as leader:
        both = await two_in(leader, folder, "before")
        for one in both:
            await leader.join(one)
        (folder / "now").mkdir()
        (folder / "now" / "key").write_text("another")
        leader.apply(of_engine(folder, "now", most=2))
        await leader.until(lambda _: "is no key" in leader.status[RENDERS].engine)
        assert not leaving(leader)
        (folder / "now" / "key").unlink()
        await gone_from(leader, folder, "before", *both)
        await two_in(leader, folder, "now")


async def test_boxes_of_somebody_elses_take_the_place_of_an_engines(folder: Path, r: Client) -> None:
    async with leading(r, folder, of_engine(folder, "before"), load=load) as leader:
        both = await two_in(leader, folder, "before")
        for one in both:
            await leader.join(one)
        leader.apply(pool(provider="join"))
        await gone_from(leader, folder, "before", *both)
        await leader.until(lambda _: not list((folder / "before").glob("*/*.pid")))
        assert not await leader.all()


async def test_another_leader_knows_the_former_engine_from_the_generations(folder: Path, r: Client) -> None:
    before, now = of_engine(folder, "before"), of_engine(folder, "now")
    async with leading(r, folder, before, load=load) as leader:
        both = await two_in(leader, folder, "before")
        for one in both:
            await leader.join(one)
        born_ms = min(m.born_ms for m in (await leader.all()).values())
        seal = SigningKey(leader.layout, "f").control()
    for number, said in ((1, before), (2, now)):
        generation = Generation(
            number=number,
            at_ms=born_ms + number,
            fleet=structs.replace(fleet([SIMULATION]), pools={RENDERS: said}),
            digest="",
        )
        assert await publish(r, Keys(""), generation, seal)
    await r.delete(Keys("").leader("f"))
    async with leading(r, folder, now, load=load) as leader:
        leader.former = await RetiredPools(r, Keys("")).former(generation, await leader.members.read(), seal)
        assert leader.former == {RENDERS: (before,)}
        await gone_from(leader, folder, "before", *both)
        await two_in(leader, folder, "now")


async def test_settings_from_before_the_oldest_member_are_not_looked_at(tmp_path: Path, r: Client) -> None:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    seal, keys = SigningKey(layout, "f").control(), Keys("")
    members = Members(r, keys, "f", lambda: seal)
    assert await members.add(member(1, born_ms=5 * LATE_MS), most=4)
    for number in (1, 2, 3, 4, 5, 6):
        one = pool(options={"n": number}, provider="join" if number == 5 else "command")
        said = structs.replace(fleet([SIMULATION]), pools={RENDERS: one})
        now = Generation(number=number, at_ms=(2 * number - 1) * LATE_MS, fleet=said, digest="")
        assert await publish(r, keys, now, seal)
    seen = await members.read()
    found = await RetiredPools(r, keys).former(now, seen, seal)
    assert [p.options["n"] for p in found[RENDERS]] == [4, 3, 2]
    for one_of in seen.members:
        assert await members.remove(one_of)
    assert await RetiredPools(r, keys).former(now, await members.read(), seal) == {}
