"""A drift's story as a person reads it at night: first what and why, then what emp does, then what one can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emp_orch.cli.output.journal_text import moment
from emp_orch.cli.output.text import age
from emp_orch.fleet.journal.entries import RUN
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.fleet.journal.drift_story import Occurrence, Try
    from emp_orch.fleet.policy.item import Item
    from emp_orch.store.drift_stories import Explained

# Decisions and tries of one time that are told; --json has all.
TOLD = 8


def text(found: Explained, now_ms: int, line: str) -> str:
    story, last = found.story, found.story.last
    kind, machine_id, subject = story.names
    where = subject if subject == machine_id else f"{subject} on {machine_id}"
    state = "stands" if story.now else f"has closed after {age(last.healed_after_ms)}"
    rows = [
        ("differs", f"{last.desired} → {last.observed}" if last.desired or last.observed else ""),
        ("cause", last.cause),
        *_rows("it said", [f"| {line}" for line in found.words]),
        ("since", _since(last, now_ms, stands=story.now is not None)),
        ("detected", _detected(last)),
        ("from", last.origin + (f": {line}" if line else "") if last.origin else ""),
        *(_now(story.now, now_ms) if story.now else _healed(last)),
        *_rows("decided", [_said(last, n) for n in range(len(last.decisions))]),
        *_rows("tried", [_try(t) for t in last.tries]),
        *_rows("before", [_former(o) for o in story.earlier]),
        ("", f"{story.times} times in all, as far as the journal goes back" if story.times > 1 else ""),
        *_rows("you can", list(found.can_do)),
    ]
    head = f"{kind} of {where}: {state}"
    lines = [f"  {word:<9} {told}" for word, told in rows if told]
    return "\n".join(one_line(shown) for shown in (head, *lines, f"  {'key':<9} {story.key}"))


def _since(last: Occurrence, now_ms: int, *, stands: bool) -> str:
    began = moment(last.opened_ms)
    if stands:
        return f"{began}, {age(max(0, now_ms - last.opened_ms))} ago"
    return began if last.closed_ms is None else f"{began} until {moment(last.closed_ms)}"


def _detected(last: Occurrence) -> str:
    late = last.detected_after_ms
    return "at the next look; no report tells when it began" if late is None else f"{age(late)} after it began"


def _now(item: Item, now_ms: int) -> list[tuple[str, str]]:
    tries = f"{item.attempts} attempt{'' if item.attempts == 1 else 's'} so far" if item.attempts else ""
    when = item.next_attempt_ms
    held = item.held
    if when is not None:
        held += f"; next {'now' if when <= now_ms else f'in {age(when - now_ms)}, at {moment(when)[11:19]}'}"
    return [("leads to", item.action or "no action"), ("waits", held), ("attempts", tries)]


def _healed(last: Occurrence) -> list[tuple[str, str]]:
    by = last.healed_by
    if by is None:
        return [("healed by", "itself: supervisord, the start-up sequence, or what another drift led to")]
    return [("healed by", by.text or by.operation)]


def _said(last: Occurrence, n: int) -> str:
    told = last.decisions[n]
    return f"{moment(told.at_ms)[11:]}  {'to do it now' if told.decision == RUN else f'to wait: {told.decision}'}"


def _try(t: Try) -> str:
    took = "" if t.ended_ms is None else f" after {age(max(0, t.ended_ms - t.begun_ms))}"
    error = f": {t.error}" if t.error else ""
    hint = f" ({t.hint})" if t.hint else ""
    outcome = t.outcome or "no word yet"
    return f"{moment(t.begun_ms)[11:]}  {t.text.partition('  (')[0] or t.operation}: {outcome}{took}{error}{hint}"


def _former(o: Occurrence) -> str:
    by = o.healed_by
    how = f" by {by.text.partition('  (')[0] or by.operation}" if by else ""
    return f"{moment(o.opened_ms)}  healed after {age(o.healed_after_ms)}{how}"


def _rows(word: str, told: list[str]) -> list[tuple[str, str]]:
    """The last few, the word beside the first of them."""
    shown = told[-TOLD:]
    cut = [f"… {len(told) - TOLD} more before: --json"] if len(told) > TOLD else []
    return [(word if n == 0 else "", t) for n, t in enumerate([*cut, *shown])]
