"""Histories by a seed: cheaper than Hypothesis' by far, and as different as dice make them."""

from __future__ import annotations

from random import Random

from sim.events import EVENTS
from sim.settle import settle
from sim.simulation import Simulation

MOST_EVENTS = 14


def history(seed: int) -> tuple[int, Simulation]:
    """Live through history number `seed`; the seconds until it came to rest."""
    dice = Random(seed)
    sim = Simulation().booted()
    events = dice.sample(EVENTS, dice.randint(4, len(EVENTS)))  # not all happens in one life
    for _ in range(dice.randint(1, MOST_EVENTS)):
        dice.choice(events)(sim, dice.choice)
    return settle(sim), sim
