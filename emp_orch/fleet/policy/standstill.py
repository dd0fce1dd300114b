"""When waiting is in vain: all that still differs is left to people, and says so."""

from __future__ import annotations

from collections.abc import Iterable

from emp_orch.fleet.drift.kinds import BEHIND, Drift, Kind
from emp_orch.fleet.policy.holds import NEEDS_A_PERSON, Hold
from emp_orch.fleet.policy.item import Item

# What only a person can mend may also have been seen in the midst of a start: it must have stood for so long.
STANDS_MS = 15_000
# A host that is silent for so long is not just slow.
ANSWERS_AGAIN_MS = 30_000
# A report may be written anew by itself.
_PASSES = frozenset({Kind.REPORT_MALFORMED})


def standstill(drifts: Iterable[Drift], items: Iterable[Item], now_ms: int, *, goes_back: bool) -> tuple[Item, ...]:
    """What keeps each of `drifts`, if people must act on all of them; empty while emp still does something.

    `items` is what the reconciler said last; `goes_back`: a rollout that is halted is taken back by itself.
    """
    said = {item.drift.key: item for item in items}
    found = [said.get(drift.key) for drift in drifts]
    left = tuple(item for item in found if item is not None and _needs_a_person(item, now_ms, goes_back=goes_back))
    return left if len(left) == len(found) else ()


def _needs_a_person(item: Item, now_ms: int, *, goes_back: bool) -> bool:
    stood_ms = now_ms - item.since_ms
    match item.hold:
        case Hold.QUARANTINE | Hold.ROLLOUT:
            return not goes_back
        case Hold.PAUSE:  # a change comes by nobody else; what is ill may get well
            return item.drift.kind in BEHIND or stood_ms >= STANDS_MS
        case Hold.BREAKER:
            return True
        case Hold.UNKNOWN:
            return stood_ms >= ANSWERS_AGAIN_MS
        case None:
            away = item.drift.kind is Kind.MACHINE_UNREACHABLE
            stands = stood_ms >= (ANSWERS_AGAIN_MS if away else STANDS_MS)
            return stands and not item.action and item.drift.kind in NEEDS_A_PERSON - _PASSES
        case _:
            return False
