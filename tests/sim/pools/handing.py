"""Whether jobs of a pool that gets no boxes are handed on in time, not before, and go back: by a record of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.pools.memory import AWAITED_MS
from emp_orch.fleet.pools.size import PoolSize
from emp_orch.fleet.round import Inputs, Round
from sim.pools.fleets import GUESTS, RENDERS, SPARE, UP_S

if TYPE_CHECKING:
    from sim.pools.watch import PoolWatch

# All that serve the lane of which jobs are handed on.
BY_COST = (RENDERS, GUESTS, SPARE)
# What a leader may take to see, beyond the window: another may lead meanwhile.
LATE_MS = 20_000
# Rounds farther apart than that say nothing of the time between.
APART_MS = 10_000


@dataclass
class Wait:
    """Of one pool: since when it has fewer boxes than are wanted and got none; `over`: others are to run its jobs."""

    since_ms: int | None = None
    boxes: int = 0
    over: bool = False

    def is_over(self, now_ms: int) -> bool:
        return self.over or (self.since_ms is not None and now_ms - self.since_ms >= AWAITED_MS)

    def seen(self, wanted: int, boxes: int, now_ms: int) -> None:
        self.over = boxes < wanted and self.is_over(now_ms)
        if boxes >= wanted:
            self.since_ms = None
        elif self.since_ms is None or boxes > self.boxes:
            self.since_ms = now_ms
        self.boxes = boxes


class Handing:
    """`on`: rounds in which the cheapest pool gets no boxes, and dearer ones are to run its jobs; `back`: how often it
    had all its boxes again.
    """

    def __init__(self, watch: PoolWatch) -> None:
        self._watch = watch
        self._waits = {name: Wait() for name in BY_COST}
        # Of each pool at each round: when, and how many jobs there are for it.
        self._due: dict[PoolName, deque[tuple[int, int]]] = {name: deque(maxlen=100) for name in BY_COST}
        self.on = self.back = 0

    def judge(self, inputs: Inputs, done: Round, orders: Mapping[PoolName, int], *, same: bool) -> None:
        """`same`: nobody said anything else since the last round."""
        now_ms = inputs.observed.now_ms
        left = sum(w.jobs for w in inputs.observed.waiting if len(w.pools) > 1)
        for name in BY_COST:
            size, looks = done.pools[name], self._due[name]
            due = _jobs(inputs, size) + left
            left = max(0, left - self._room(name, inputs, done, orders))
            unread = inputs.observed.pools[name].backlog is None
            if unread or not same or (looks and now_ms - looks[-1][0] > APART_MS):
                looks.clear()
            looks.append((now_ms, due))
            if name not in orders:
                self._not_before(inputs, size, due)
                self._in_time(inputs, size)
        for name, wait in self._waits.items():
            was = wait.is_over(now_ms)
            self.on += was and name == RENDERS and self._due[GUESTS][-1][1] > 0
            wait.seen(done.pools[name].wanted, boxes_of(done.pools[name]), now_ms)
            self.back += was and name == RENDERS and not wait.over

    def _not_before(self, inputs: Inputs, size: PoolSize, due: int) -> None:
        """A dearer pool grows for what no cheaper one has room for, and for what only it can run; and where no box came
        to a cheaper one for long, or a person holds it, for what that has none for."""
        before, least = inputs.memory.pools.get(size.name), inputs.desired.pools[size.name].min_size
        if before is not None and size.wanted > max(before.size, due, least):
            what = f"{size.wanted} of {size.name} are wanted, and {max(due, least)} do"
            self._watch.fail("cheapest first", what)

    def _in_time(self, inputs: Inputs, size: PoolSize) -> None:
        """Who wants boxes in vain keeps no jobs for itself."""
        now_ms, looks = inputs.observed.now_ms, self._due[size.name]
        begin_ms = now_ms - int(UP_S * 1000) - LATE_MS
        if looks[0][0] > begin_ms:
            return
        lately = [n for at, n in looks if at > begin_ms]
        most = min(*lately, inputs.desired.pools[size.name].max_size)
        if size.wanted < most:
            what = f"{size.wanted} of {size.name} are wanted, and {most} jobs have waited for it"
            self._watch.fail("handed on", what)

    def _room(self, name: PoolName, inputs: Inputs, done: Round, orders: Mapping[PoolName, int]) -> int:
        """For how many more jobs a pool has members, or is to get them."""
        size = done.pools[name]
        limits = [inputs.desired.pools[name].max_size]
        limits += [boxes_of(size)] if self._waits[name].is_over(inputs.observed.now_ms) else []
        limits += [orders[name]] if name in orders else []
        return max(0, min(limits) - sum(m.jobs for m in size.members if m.counts))


def _jobs(inputs: Inputs, size: PoolSize) -> int:
    """That only this pool can run, and that run on it."""
    own = sum(w.jobs for w in inputs.observed.waiting if w.pools == (size.name,))
    return own + sum(m.jobs for m in size.members if m.counts)


def boxes_of(size: PoolSize) -> int:
    """Members that have a box, as far as the round could know."""
    return sum(m.counts and not m.away for m in size.members)
