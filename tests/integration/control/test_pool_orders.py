"""`emp scale POOL N|auto`: an order that stands beside pauses and drains, sealed, and that a leader acts by."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from emp_orch.errors import UsageError
from emp_orch.fleet.model.overrides import Override, OverrideKind
from emp_orch.fleet.names import UnknownName
from emp_orch.layout import Layout
from emp_orch.runtimes.keys.signing import SigningKey
from emp_orch.store.fleet.generations import Generation, publish
from emp_orch.store.fleet.orders import Orders, Scope
from emp_orch.store.fleet.overrides import read_overrides
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import SIMULATION, fleet
from support.fleet.pools import RENDERS, pool

KEYS = Keys("")


@pytest.fixture
async def orders(tmp_path: Path, r: Client) -> Orders:
    layout = Layout(tmp_path)
    layout.control.mkdir(parents=True)
    seal = SigningKey(layout, "f").control()
    has_pool = structs.replace(fleet([SIMULATION]), pools={RENDERS: pool(most=4)})
    assert await publish(r, KEYS, Generation(number=1, at_ms=1, fleet=has_pool, digest=""), seal)
    return Orders(r, KEYS, "f", seal)


async def test_a_pool_is_held_at_a_size_until_it_is_set_free(r: Client, orders: Orders) -> None:
    assert await orders.scale("renders", None, reason="", by="ops") is None
    said = await orders.scale("renders", 3, reason="a show", by="ops")
    assert said is not None and (said.lifted_by, said.what) == ("emp scale renders auto", "held at 3")
    await orders.pause(Scope(), reason="", by="ops")
    standing = await read_overrides(r, KEYS, "f")
    assert [(o.kind, o.scope, o.size) for o in standing] == [
        (OverrideKind.PAUSE, "fleet", 0),
        (OverrideKind.SCALE, "renders", 3),
    ]
    lifted = await orders.scale("renders", None, reason="", by="ops")
    assert isinstance(lifted, Override) and lifted.size == 3
    assert [o.kind for o in await read_overrides(r, KEYS, "f")] == [OverrideKind.PAUSE]


async def test_a_size_that_the_pool_may_not_have_and_a_pool_that_is_none_are_refused(orders: Orders) -> None:
    with pytest.raises(UsageError, match="pool renders has at most 4 members, not 5"):
        await orders.scale("renders", 5, reason="", by="ops")
    with pytest.raises(UnknownName, match="no pool other"):
        await orders.scale("other", 1, reason="", by="ops")


async def test_resume_of_the_pools_name_sets_it_free_too(r: Client, orders: Orders) -> None:
    await orders.scale("renders", 3, reason="", by="ops")
    done = await orders.resume(Scope(machine_id="renders"), by="ops")
    assert done.lifted == ("scale:renders",)
    assert await read_overrides(r, KEYS, "f") == ()
