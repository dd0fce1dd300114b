"""A reconciler's part in who leads, on a real Redis."""

from __future__ import annotations

import asyncio
import logging

import pytest

from emp_orch.control.leader.leadership import LeaderElection
from emp_orch.store.fleet.leader import Mandate, NotLeader
from emp_orch.store.redis.client import Client, time_ms
from emp_orch.store.redis.keys import Keys
from support.redis.server import until

KEYS = Keys("lead:")
# Of another host's reconcilers: nobody here can tell whether they live.
ONE, TWO = "elsewhere:1:1", "elsewhere:2:2"


async def _leading(lead: LeaderElection) -> Mandate:
    mandate = await lead.take()
    assert mandate is not None
    return mandate


async def test_the_lease_is_kept_beside_the_work(r: Client) -> None:
    """An interval may be longer than the lease."""
    one, two = LeaderElection(r, KEYS, "f", ONE, lease_s=1.0), LeaderElection(r, KEYS, "f", TWO, lease_s=1.0)
    mandate = await _leading(one)
    over_ms = await time_ms(r) + 2_500
    keeping = asyncio.create_task(one.keep())

    async def more_than_two_leases_later() -> bool:
        assert await two.take() is None
        return await time_ms(r) > over_ms

    await until(more_than_two_leases_later)
    one.assure(mandate)
    keeping.cancel()

    async def taken() -> Mandate | None:
        return await two.take()

    assert (await until(taken)).epoch > mandate.epoch
    with pytest.raises(NotLeader):
        one.assure(mandate)


async def test_who_stands_by_looks_when_the_lease_would_end(r: Client) -> None:
    one, two = LeaderElection(r, KEYS, "f", ONE, lease_s=5.0), LeaderElection(r, KEYS, "f", TWO)
    await _leading(one)
    assert one.wait_s(60.0) == 60.0
    assert await two.take() is None
    assert 0 < two.wait_s(60.0) <= 5.1
    assert two.wait_s(0.5) == 0.5


async def test_who_leads_is_said_once(r: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconcile")
    one, two = LeaderElection(r, KEYS, "f", ONE), LeaderElection(r, KEYS, "f", TWO)
    await _leading(one)
    for _ in range(3):
        await two.take()
    await one.resign()
    await _leading(two)
    one.stand_by(NotLeader("f", TWO))
    await one.take()
    assert [m.partition(" with")[0] for m in caplog.messages] == [
        "leading f",
        f"{ONE} leads f; standing by",
        "leading f",
        f"{TWO} leads f; standing by",
    ]
