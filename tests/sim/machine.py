"""Hypothesis' state machine over the simulation: one rule for each event, in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sim.events import EVENTS, Event
from sim.settle import settle
from sim.simulation import Simulation

# How many histories ran in this process, and what they came to.
counts: Counter[str] = Counter()


class History(RuleBasedStateMachine):
    """A fleet in order, what happens to it, and then the end that it must come to."""

    sim: Simulation

    @initialize()
    def start(self) -> None:
        self.sim = Simulation().booted()

    def teardown(self) -> None:
        if hasattr(self, "sim") and not self.sim.watch.broken:
            counts["seconds"] += settle(self.sim)
            counts["rounds"] += self.sim.watch.rounds
            counts["histories"] += 1


def _rule_of(event: Event) -> Callable[..., None]:
    def happens(self: History, data: st.DataObject) -> None:
        def choose(options: Sequence[Any]) -> Any:
            return data.draw(st.sampled_from(options))

        event(self.sim, choose)

    happens.__name__ = event.__name__
    made: Callable[..., None] = rule(data=st.data())(happens)
    return made


Histories = type("Histories", (History,), {event.__name__: _rule_of(event) for event in EVENTS})
