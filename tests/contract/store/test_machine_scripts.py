"""Who may send scripts of its own to Redis, and until when: generations decide it, and nothing that a machine says."""

from __future__ import annotations

import math

import pytest

from emp_orch.fleet.model.package import WorkerPackage
from emp_orch.seals import KEY_BYTES, Seal
from emp_orch.store.acl.machine_scripts import CHANGE_MS, sent_until_ms
from emp_orch.store.fleet.generations import Generation, publish
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys
from support.fleet.fleets import fleet

KEYS = Keys("t:")
SEAL = Seal(bytes(KEY_BYTES))
# a and b: packages whose scripts are known; c: one whose are not; -: none is named, by an older emp.
KNOWN = ("a" * 64, "b" * 64)
NOW_MS = 10 * CHANGE_MS
EARLY, LATE = NOW_MS - CHANGE_MS, NOW_MS - CHANGE_MS + 1


async def published(r: Client, *packages: tuple[str, int], seal: Seal = SEAL) -> Generation:
    """The last of generations, each with its package and when it was applied."""
    for number, (name, at_ms) in enumerate(packages, 1):
        package = None if name == "-" else WorkerPackage(digest=name * 64)
        found = Generation(number=number, at_ms=at_ms, fleet=fleet([]), digest="", package=package)
        assert await publish(r, KEYS, found, seal)
    return found


@pytest.mark.parametrize(
    ("packages", "until"),
    [
        pytest.param([("a", NOW_MS)], 0, id="the first of all"),
        pytest.param([("c", 0)], math.inf, id="one that is not known, however long"),
        pytest.param([("-", 0)], math.inf, id="of an older emp, however long"),
        pytest.param([("a", 0), ("c", NOW_MS)], math.inf, id="back to one that is not known"),
        pytest.param([("-", 0), ("a", NOW_MS)], NOW_MS + CHANGE_MS, id="an upgrade"),
        pytest.param([("-", 0), ("a", LATE)], LATE + CHANGE_MS, id="an upgrade nearly an hour ago"),
        pytest.param([("-", 0), ("a", EARLY)], 0, id="an upgrade an hour ago"),
        pytest.param([("c", 0), ("a", LATE), ("b", NOW_MS), ("a", NOW_MS)], LATE + CHANGE_MS, id="and others since"),
        pytest.param([("c", 0), ("a", EARLY), ("b", NOW_MS)], 0, id="another apply begins no other hour"),
        pytest.param([("c", 0), ("a", 20 * CHANGE_MS)], 0, id="applied by a clock far ahead"),
    ],
)
async def test_as_long_as_something_may_run_from_a_package_whose_scripts_nobody_knows(
    r: Client, packages: list[tuple[str, int]], until: float
) -> None:
    in_force = await published(r, *packages)
    assert await sent_until_ms(r, KEYS, SEAL, in_force, NOW_MS, KNOWN.__contains__) == until


async def test_a_generation_that_somebody_else_put_there_gives_no_such_right(r: Client) -> None:
    in_force = await published(r, ("-", 0), ("a", NOW_MS))
    await r.set(KEYS.spec(in_force.fleet.name, 1), await r.get(KEYS.spec(in_force.fleet.name, 2)) or "")
    assert await sent_until_ms(r, KEYS, SEAL, in_force, NOW_MS, KNOWN.__contains__) == 0
