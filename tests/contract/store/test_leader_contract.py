"""One leads, and Redis itself refuses what anybody else writes: on Redis and on Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from emp_orch.fleet.desired.machines import config_hash
from emp_orch.seals import KEY_BYTES, CommandKey
from emp_orch.store.fleet import commands, configs, journal
from emp_orch.store.fleet.commands import Command, CommandVerb, StampedCommand
from emp_orch.store.fleet.configs import MachineConfig
from emp_orch.store.fleet.events import Events
from emp_orch.store.fleet.leader import Elsewhere, Leadership, Mandate, NotLeader
from emp_orch.store.fleet.status import FleetStatus, read_status, write_status
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import SIMULATION, one
from support.redis.server import until

KEYS = Keys("t:")
MACHINE = one([SIMULATION], machine_id="m1")
M = MACHINE.id


def candidate(r: Client, who: str, *, ttl_ms: int = 60_000) -> Leadership:
    return Leadership(r, KEYS, "f", who, ttl_ms=ttl_ms)


async def leading(one: Leadership) -> Mandate:
    mandate = await one.acquire()
    assert isinstance(mandate, Mandate), mandate
    return mandate


# -- the lease


async def test_one_leads_and_each_new_leader_has_a_higher_epoch(r: Client) -> None:
    one, two = candidate(r, "one"), candidate(r, "two")
    first = await leading(one)
    assert await leading(one) == first
    for _ in range(2):
        found = await two.acquire()
        assert isinstance(found, Elsewhere)
        assert found.holder == "one"
        assert 0 < found.left_ms <= 60_000
        await two.release()
    await one.release()
    second = await leading(two)
    assert second.epoch > first.epoch
    assert isinstance(await one.acquire(), Elsewhere)


async def test_giving_the_lease_back_is_told_to_who_stands_by_once(r: Client) -> None:
    one = candidate(r, "one")
    await leading(one)
    await one.release()
    await one.release()
    told = await Events(r, KEYS).recent(10)
    assert [(e.type, e.data["fleet"], e.data["leader"]) for e in told] == [("lease_released", "f", "one")]


async def test_an_emptied_redis_does_not_go_back_to_old_epochs(r: Client) -> None:
    one = candidate(r, "one")
    before = await leading(one)
    await r.flushall()
    assert (await leading(one)).epoch > before.epoch


async def test_no_epoch_comes_again_that_a_candidate_has_seen_though_redis_was_emptied_and_its_clock_set_back(
    r: Client,
) -> None:
    one, two = candidate(r, "one"), candidate(r, "two")
    an_hour_ahead = await time_ms(r) + 3_600_000
    await r.set(KEYS.epoch("f"), an_hour_ahead)
    before = await leading(one)
    assert before.epoch > an_hour_ahead
    assert isinstance(await two.acquire(), Elsewhere)
    await r.flushall()
    assert (await leading(two)).epoch > before.epoch


@pytest.mark.parametrize("epoch", [None, "", "nan", "-1", "1e300", "9" * 40, "x"])
async def test_an_epoch_that_is_none_is_replaced_by_a_fitting_one(r: Client, epoch: str | None) -> None:
    one = candidate(r, "one")
    before = await leading(one)
    if epoch is None:
        await r.delete(KEYS.epoch("f"))
    else:
        await r.set(KEYS.epoch("f"), epoch)
    after = await leading(one)
    # Two within one millisecond: the later one is the next number.
    assert before.epoch <= after.epoch <= max(before.epoch + 1, await time_ms(r))


async def test_a_lease_that_is_not_renewed_ends_and_what_it_gave_is_not_assured(r: Client) -> None:
    one, two = candidate(r, "one", ttl_ms=300), candidate(r, "two")
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    mandate = await leading(one)
    one.assure(mandate)

    async def refused() -> bool:
        try:
            one.assure(mandate)
        except NotLeader as e:
            return e.holder == ""
        return False

    await until(refused)
    # The order is the promise: nothing is assured any more while nobody else can lead yet.
    assert time.clock_gettime(time.CLOCK_BOOTTIME) - began >= 0.3 * 0.9

    async def taken() -> bool:
        return isinstance(await two.acquire(), Mandate)

    await until(taken)


async def test_a_slow_answer_does_not_prolong_what_is_assured(r: Client) -> None:
    """Redis counted from when it got the question: what was asked long ago may be over already."""
    one, two = candidate(r, "one", ttl_ms=300), candidate(r, "two")
    await r.client_pause(600)
    mandate = await leading(one)  # answered after twice the lease's time
    with pytest.raises(NotLeader):
        one.assure(mandate)
    assert isinstance(await two.acquire(), Elsewhere)


async def test_nothing_is_assured_under_another_mandate_than_the_present(r: Client) -> None:
    one, two = candidate(r, "one"), candidate(r, "two")
    former = await leading(one)
    await one.release()
    with pytest.raises(NotLeader):
        one.assure(former)
    await leading(two)
    await one.acquire()
    with pytest.raises(NotLeader, match="two leads f now"):
        one.assure(former)
    await two.release()
    present = await leading(one)
    one.assure(present)
    with pytest.raises(NotLeader):
        one.assure(former)


# -- what only the leader writes


def _status(mandate: Mandate) -> FleetStatus:
    return FleetStatus(
        fleet="f", generation=1, leader=mandate.holder, epoch=mandate.epoch, at_ms=1, interval_ms=1, drift=(), plan=()
    )


KEY = CommandKey(fleet="f", machine=M, key="ab" * KEY_BYTES)
ORDER = Command(seq="s", verb=CommandVerb.RESTART_PROGRAM, program="simulation")
CONFIG = MachineConfig(generation=1, digest=config_hash(MACHINE), supervisord="[supervisord]\n", machine=MACHINE)

Write = Callable[[Client, Mandate], Awaitable[None]]

WRITES: dict[str, Write] = {
    "command": lambda r, m: commands.send(r, KEYS, m, M, ORDER, seal=KEY.seal, count=1),
    "config": lambda r, m: configs.write_config(r, KEYS, m, CONFIG, KEY.seal),
    "remove": lambda r, m: configs.remove_machine_keys(r, KEYS, m, M),
    "status": lambda r, m: write_status(r, KEYS, m, _status(m)),
    "journal": lambda r, m: journal.write(r, KEYS, m, [("a", {"n": 1})]),
}


async def _all(r: Client) -> dict[str, bytes]:
    return {key: await r.execute_command("DUMP", key, NEVER_DECODE=True) async for key in r.scan_iter("*")}


@pytest.fixture(params=WRITES)
def write(request: pytest.FixtureRequest) -> Write:
    return WRITES[request.param]


async def test_a_write_of_a_former_leader_is_refused_and_changes_nothing(r: Client, write: Write) -> None:
    former = await leading(candidate(r, "one", ttl_ms=50))
    two = candidate(r, "two")

    async def taken() -> Mandate | None:
        found = await two.acquire()
        return found if isinstance(found, Mandate) else None

    now = await until(taken)
    for other in WRITES.values():
        if other is not WRITES["remove"]:
            await other(r, now)
    before = await _all(r)
    with pytest.raises(NotLeader, match="two leads f now") as caught:
        await write(r, former)
    assert caught.value.holder == "two"
    assert await _all(r) == before
    await write(r, now)
    # A removal leaves the same as it found when it did nothing; the rest adds or sets.
    assert (await _all(r) != before) == (write is not WRITES["config"] and write is not WRITES["status"])


@pytest.mark.parametrize("lost", ["lease", "epoch", "all", "newer epoch"])
async def test_a_write_is_refused_once_redis_knows_nothing_of_its_mandate(r: Client, write: Write, lost: str) -> None:
    mandate = await leading(candidate(r, "one"))
    await configs.write_config(r, KEYS, mandate, CONFIG, KEY.seal)
    match lost:
        case "lease":
            await r.delete(KEYS.leader("f"))
        case "epoch":
            await r.delete(KEYS.epoch("f"))
        case "all":
            await r.flushall()
        case _:
            await r.set(KEYS.epoch("f"), mandate.epoch + 1)
    before = await _all(r)
    with pytest.raises(NotLeader, match="the lease on f is over"):
        await write(r, mandate)
    assert await _all(r) == before


async def test_what_the_leader_writes_is_read_back(r: Client) -> None:
    mandate = await leading(candidate(r, "one"))
    for name in ("command", "config", "status"):
        await WRITES[name](r, mandate)
    entries = [("drift_opened", {"n": n}) for n in range(journal.AT_ONCE + 2)]
    await journal.write(r, KEYS, mandate, [*entries, ("drift_closed", {"text": 'ü "quoted"\n'})])
    ((_, text),) = await commands.commands_after(r, KEYS, M, "0-0", block_ms=10)
    assert commands.opened(text, KEY) == StampedCommand(
        epoch=mandate.epoch, count=1, seq="s", verb=CommandVerb.RESTART_PROGRAM, program="simulation"
    )
    assert await configs.read_config(r, KEYS, KEY) == CONFIG
    assert await read_status(r, KEYS, "f") == _status(mandate)
    recorded = await journal.recent(r, KEYS, "f", 10_000)
    assert [e.data.get("n") for e in recorded] == [*range(journal.AT_ONCE + 2), None]
    assert recorded[-1].data == {"type": "drift_closed", "text": 'ü "quoted"\n'}
    await WRITES["remove"](r, mandate)
    assert await configs.read_config(r, KEYS, KEY) is None
    assert await r.exists(KEYS.commands(M), KEYS.acks(M)) == 0


async def test_two_fleets_in_one_redis_have_leaders_of_their_own(r: Client) -> None:
    one = await leading(Leadership(r, KEYS, "f", "one", ttl_ms=60_000))
    other = await leading(Leadership(r, KEYS, "g", "two", ttl_ms=60_000))
    await asyncio.gather(*(w(r, m) for w in WRITES.values() for m in (one, other)))
    assert await read_status(r, KEYS, "g") == _status(other)
