"""What people and policies hold up, in words: pauses, drains, breaker, rollout, what waits for a person; lost jobs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from emp_orch.cli.output.text import age

if TYPE_CHECKING:
    from emp_orch.control.status.inspect import Difference, DriftNow
    from emp_orch.fleet.model.overrides import Override
    from emp_orch.fleet.policy.item import Item
    from emp_orch.jobs.outcome.losses import Loss
    from emp_orch.store.fleet.status import BreakerStatus, RolloutStatus

# Of each sort; all of them with --json.
SHOWN = 8


def held_lines(found: Difference) -> list[tuple[str, str]]:
    """(word, sentence) for each, the widest first; empty when nothing is held up."""
    now_ms = found.observed.now_ms
    lines = [(str(o.kind), override_line(o, now_ms)) for o in found.overrides[:SHOWN]]
    if (more := len(found.overrides) - SHOWN) > 0:
        lines.append(("", f"… and {more} more pauses and drains: emp status --json"))
    if found.breaker is not None:
        lines.append(("breaker", breaker_line(found.breaker, now_ms)))
    if found.rollout is not None:
        lines.append(("rollout", rollout_line(found.rollout, now_ms)))
    if found.redis.lost is not None:
        lines.append(("lost", loss_line(found.redis.lost, now_ms)))
    if found.redis.evicts:
        lines.append(("evicts", f"{found.redis.eviction}; {found.redis.way_out}"))
    if found.redis.alone:
        lines.append(("alone", found.redis.alone))
    lines += [("person", f"{d.drift.kind} {d.drift.subject}: {d.held}") for d in found.quarantined[:SHOWN]]
    if (more := len(found.quarantined) - SHOWN) > 0:
        lines.append(("", f"… and {more} more that need a person: emp diff"))
    return lines


def override_line(o: Override, now_ms: int) -> str:
    since = _ago_ms(o.at, now_ms)
    stood = "" if since is None else f", since {age(since)}"
    what = f"{o.scope} {o.what}" if o.pool else o.scope
    return f"{what}: {o.words}{stood}; `{o.lifted_by}` ends it"


def breaker_line(breaker: BreakerStatus, now_ms: int) -> str:
    tried = f"; trying {_names(breaker.trial)}" if breaker.trial else ""
    return f"open since {age(max(0, now_ms - breaker.since_ms))}: {breaker.reason}{tried}; `emp resume` closes it"


def rollout_line(rollout: RolloutStatus, now_ms: int) -> str:
    total = rollout.done + rollout.pending
    words = f"generation {rollout.generation}: {rollout.done} of {total} machines in order"
    if rollout.halted:
        words += f"; halted: {_names(rollout.broken)} failed with it"
    if rollout.stalled:
        words += f"; stalled: no progress since {age(max(0, now_ms - rollout.since_progress_ms))}"
    return words


def loss_line(loss: Loss, now_ms: int) -> str:
    at = datetime.fromtimestamp(loss.at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{loss.words}, at {at} ({age(max(0, now_ms - loss.at_ms))} ago); {loss.hint}"


def who_holds(found: Difference) -> str:
    """In a few words, why nothing goes on where that is so for the whole fleet; empty when it is not."""
    if found.paused:
        return f"the reconciler is paused: {found.paused}; `emp resume` ends it"
    if found.breaker is not None:
        return f"the breaker is {breaker_line(found.breaker, found.observed.now_ms)}"
    if found.rollout is not None and (found.rollout.halted or found.rollout.stalled):
        return f"the rollout of {rollout_line(found.rollout, found.observed.now_ms)}"
    held = [d for d in found.drift if d.held and d.hold is not None]
    return f"{held[0].drift.subject} waits: {waits(held[0])}; see `emp explain`" if held else ""


def waits(item: DriftNow | Item) -> str:
    """Why nothing is done about it now, and what came of it when something was."""
    return "; last attempt: ".join(filter(None, (item.held, item.failed)))


def _names(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (" …" if len(first) > 3 else "")


def _ago_ms(at: str, now_ms: int) -> int | None:
    """How long ago an RFC 3339 time was; None for what is none."""
    try:
        then = datetime.fromisoformat(at)
    except ValueError:
        return None
    return max(0, now_ms - int(then.timestamp() * 1000)) if then.tzinfo else None
