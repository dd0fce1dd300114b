"""Histories of pools by a seed, each with the end that it must come to."""

from __future__ import annotations

from random import Random
from typing import TypeVar

from sim.pools.events import EVENTS, jobs_come, the_cheapest_gets_no_boxes
from sim.pools.loop import VirtualLoop, virtual
from sim.pools.settle import settle
from sim.pools.simulation import PoolSimulation

T = TypeVar("T")
MOST_EVENTS = 16
# Of all histories, those in which the cheapest pool is sure to get no boxes for minutes.
HUNGRY = 0.25


def history(seed: int) -> tuple[int, PoolSimulation]:
    """Live through history number `seed`; the seconds until it came to rest."""
    dice = Random(seed)
    loop = VirtualLoop()
    sim = PoolSimulation(Random(seed + 1))
    try:
        with virtual(loop, lambda: sim.world.now_ms, Random(seed + 2)):
            took_s = loop.run_until_complete(_live(sim, dice))
    finally:
        loop.end()
    return took_s, sim


async def _live(sim: PoolSimulation, dice: Random) -> int:
    events = dice.sample(EVENTS, dice.randint(5, len(EVENTS)))
    await sim.begin()
    hungry = dice.random() < HUNGRY
    for n in range(dice.randint(1, MOST_EVENTS)):
        if hungry and n == 2:
            await the_cheapest_gets_no_boxes(sim, dice.choice)
        if dice.random() < 0.25:
            await jobs_come(sim, dice.choice)
        await dice.choice(events)(sim, dice.choice)
    took_s = await settle(sim)
    await sim.close()
    return took_s
