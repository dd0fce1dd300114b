"""Recorded rounds, decided again: the same inputs through the same pure part give the same plan. It only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import Struct

from emp_orch.fleet.round import Inputs, decide
from emp_orch.store.fleet.rounds import Kept, recorded
from emp_orch.store.redis.client import Client
from emp_orch.store.redis.keys import Keys


class Verdict(Struct, frozen=True, kw_only=True):
    """`same` None: this emp cannot read the round, and `version` wrote it. `only_then` and `only_now` are operations
    that only the record or only the new decision has: plan lines, and `begun KEY` for what was begun.
    """

    id: str
    at_ms: int
    version: str
    same: bool | None
    generation: int = 0
    drift: int = 0
    begun: tuple[str, ...] = ()
    only_then: tuple[str, ...] = ()
    only_now: tuple[str, ...] = ()


async def replayed(r: Client, keys: Keys, fleet: str, count: int) -> AsyncIterator[Verdict]:
    """Verdicts on the last `count` recorded rounds, newest first."""
    async for kept in recorded(r, keys, fleet, count):
        yield verdict(kept)


def verdict(kept: Kept) -> Verdict:
    """Decide one round again."""
    if kept.round is None:
        return Verdict(id=kept.id, at_ms=kept.at_ms, version=kept.version, same=None)
    inputs: Inputs = kept.round.inputs
    done = decide(inputs)
    then = [*kept.round.plan, *(f"begun {key}" for key in kept.round.run)]
    now = [*(o.text for o in done.operations), *(f"begun {o.key}" for o in done.decision.run)]
    return Verdict(
        id=kept.id,
        at_ms=kept.at_ms,
        version=kept.version,
        same=then == now,
        generation=inputs.desired.generation,
        drift=len(done.items),
        begun=kept.round.run,
        only_then=_beside(then, now),
        only_now=_beside(now, then),
    )


def _beside(these: list[str], others: list[str]) -> tuple[str, ...]:
    known = set(others)
    return tuple(t for t in these if t not in known)
