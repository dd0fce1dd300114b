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
    """`on`: rounds in which the dear pool is to run jobs that a cheaper one gets no boxes for; `back`: how often that
    one had all its boxes again.
    """

    def __init__(self, watch: PoolWatch) -> None:
        self._watch = watch
        self._waits = {RENDERS: Wait(), GUESTS: Wait()}
        # At each round: when, and how many jobs there are for the dear pool.
        self._due: deque[tuple[int, int]] = deque(maxlen=400)
        self.on = self.back = 0

    def judge(self, inputs: Inputs, done: Round, orders: Mapping[PoolName, int], *, same: bool) -> None:
        """`same`: nobody said anything else since the last round."""
        spare, now_ms = done.pools.get(SPARE), inputs.observed.now_ms
        if spare is None:
            return
        due = _jobs(inputs, spare) + max(
            0, _shared(inputs) - sum(self._room(n, inputs, done, orders) for n in self._waits)
        )
        unread = inputs.observed.pools[SPARE].backlog is None
        if unread or not same or (self._due and now_ms - self._due[-1][0] > APART_MS):
            self._due.clear()
        self._due.append((now_ms, due))
        if SPARE not in orders:
            self._not_before(inputs, spare, due)
            self._in_time(inputs, spare)
        for name, wait in self._waits.items():
            was = wait.is_over(now_ms)
            self.on += was and name == RENDERS and due > 0
            wait.seen(done.pools[name].wanted, boxes_of(done.pools[name]), now_ms)
            self.back += was and name == RENDERS and not wait.over

    def _not_before(self, inputs: Inputs, spare: PoolSize, due: int) -> None:
        """The dear pool grows for what no cheaper one has room for, and for what only it can run; and where no box came
        to a cheaper one for long, or a person holds it, for what that has none for."""
        before, least = inputs.memory.pools.get(SPARE), inputs.desired.pools[SPARE].min_size
        if before is not None and spare.wanted > max(before.size, due, least):
            self._watch.fail("cheapest first", f"{spare.wanted} of {SPARE} are wanted, and {max(due, least)} do")

    def _in_time(self, inputs: Inputs, spare: PoolSize) -> None:
        """Who wants boxes in vain keeps no jobs for itself."""
        now_ms = inputs.observed.now_ms
        begin_ms = now_ms - int(UP_S * 1000) - LATE_MS
        if self._due[0][0] > begin_ms:
            return
        lately = [n for at, n in self._due if at > begin_ms]
        most = min(*lately, inputs.desired.pools[SPARE].max_size)
        if spare.wanted < most:
            self._watch.fail("handed on", f"{spare.wanted} of {SPARE} are wanted, and {most} jobs have waited for it")

    def _room(self, name: PoolName, inputs: Inputs, done: Round, orders: Mapping[PoolName, int]) -> int:
        """For how many more jobs a pool has members, or is to get them."""
        size = done.pools[name]
        limits = [inputs.desired.pools[name].max_size]
        limits += [boxes_of(size)] if self._waits[name].is_over(inputs.observed.now_ms) else []
        limits += [orders[name]] if name in orders else []
        return max(0, min(limits) - sum(m.jobs for m in size.members if m.counts))


def _jobs(inputs: Inputs, spare: PoolSize) -> int:
    """That only the dear pool can run, and that run on it."""
    own = sum(w.jobs for w in inputs.observed.waiting if w.pools == (SPARE,))
    return own + sum(m.jobs for m in spare.members if m.counts)


def _shared(inputs: Inputs) -> int:
    return sum(w.jobs for w in inputs.observed.waiting if len(w.pools) > 1)


def boxes_of(size: PoolSize) -> int:
    """Members that have a box, as far as the round could know."""
    return sum(m.counts and not m.away for m in size.members)
