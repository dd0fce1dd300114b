"""A round's pools as everybody is told of them."""

from __future__ import annotations

from collections.abc import Iterable

from emp_orch.fleet.model.fleet import PoolName
from emp_orch.fleet.model.pools import Backlog, Box, BoxState, SeenPool
from emp_orch.fleet.policy.item import Item
from emp_orch.fleet.pools.size import PoolSize
from emp_orch.fleet.round import Inputs, Round
from emp_orch.store.fleet.status import PoolStatus

SAID_OF_BOXES = 3


def pools_status(inputs: Inputs, done: Round) -> dict[PoolName, PoolStatus]:
    """By name, in the order of emp.yaml."""
    return {name: _told(size, inputs, done.items) for name, size in done.pools.items()}


def _told(size: PoolSize, inputs: Inputs, items: Iterable[Item]) -> PoolStatus:
    pool, seen = inputs.desired.pools[size.name], inputs.observed.pools.get(size.name, SeenPool())
    backlog = seen.backlog or Backlog()
    refused = [i.failed for i in items if i.drift.pool == size.name and i.failed]
    return PoolStatus(
        provider=pool.provider,
        least=pool.min_size,
        most=pool.max_size,
        wanted=size.wanted,
        there=size.there,
        expected=size.expected,
        ready=size.ready,
        leaving=sum(m.leaving for m in size.members),
        why=size.why,
        coming=size.coming,
        waiting=backlog.waiting,
        running=backlog.running,
        engine=seen.error or "; ".join(dict.fromkeys((*refused, *_words(seen.boxes or ())))),
        order="" if size.order is None else f"{size.order.size}: {size.order.words}",
    )


def _words(boxes: Iterable[Box]) -> list[str]:
    """Why boxes do not run, the first few of what their engine says."""
    said = (b.words for b in boxes if b.words and b.state is not BoxState.RUNNING)
    return list(dict.fromkeys(said))[:SAID_OF_BOXES]
