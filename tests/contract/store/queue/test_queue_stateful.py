"""Whatever is submitted, claimed, lost, ended and asked, in any order: the queue does what its model says.

One suite for the queue in Redis, in Valkey and for the twin in memory. A failure prints its steps, and a line
`@reproduce_failure(…)` that replays them when it stands above the machine's class; `--hypothesis-seed` replays a whole
run. EMP_TEST_DEPTH=20 looks at twenty times as many examples.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from support.queue.machine import QueueMachine
from support.queue.worlds import StoreWorld, TwinWorld, World, slow_clocks
from support.redis.server import Server

DEPTH = int(os.environ.get("EMP_TEST_DEPTH", "1"))

_COMMON = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.register_profile("queue-twin", parent=_COMMON, max_examples=300 * DEPTH, stateful_step_count=60)
# Shrinking over a network of one's own is quick enough, explaining is not.
settings.register_profile(
    "queue-store",
    parent=_COMMON,
    max_examples=40 * DEPTH,
    stateful_step_count=40,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)


class TwinMachine(QueueMachine):
    patience_s = 0.2

    @staticmethod
    async def new_world() -> World:
        return TwinWorld()


def test_the_twin() -> None:
    run_state_machine_as_test(TwinMachine, settings=settings.get_profile("queue-twin"))


def test_the_store(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_clocks(monkeypatch)

    class StoreMachine(QueueMachine):
        @staticmethod
        async def new_world() -> World:
            world = StoreWorld(server.url)
            await world.open()
            return world

    run_state_machine_as_test(StoreMachine, settings=settings.get_profile("queue-store"))
