"""A drift's story as the API answers it and `emp explain --json` prints it. Times are RFC 3339 UTC."""

from __future__ import annotations

from msgspec import Struct

from emp_orch.fleet.journal.drift_story import Occurrence, Try
from emp_orch.store.drift_stories import Explained
from emp_orch.web.times import rfc3339


class TryView(Struct, frozen=True, kw_only=True):
    """An operation begun against it. `outcome`: done, failed, or empty while it is not known."""

    operation: str
    text: str
    begun: str
    ended: str | None
    outcome: str
    error: str
    hint: str


class SaidView(Struct, frozen=True, kw_only=True):
    """What was decided: `run`, or why not now."""

    at: str
    decision: str
    next_attempt: str | None


class OccurrenceView(Struct, frozen=True, kw_only=True):
    """One time that it stood. `detected_after_ms` None: no report tells when it began."""

    opened: str
    closed: str | None
    detected_after_ms: int | None
    healed_after_ms: int | None
    healed_by: TryView | None
    desired: str
    observed: str
    cause: str
    origin: str
    decisions: tuple[SaidView, ...]
    tries: tuple[TryView, ...]


class StoryView(Struct, frozen=True, kw_only=True):
    """`stands`: it is there now; what follows it says what emp does about it. `times`: how often it stood, as far as
    the journal goes back; `earlier` are the last of those before `last`. `last_words`: the last lines of the program
    it is about, where it ended.
    """

    key: str
    kind: str
    machine_id: str
    subject: str
    stands: bool
    action: str
    held: str
    hold: str | None
    attempts: int
    next_attempt: str | None
    can_do: tuple[str, ...]
    last_words: tuple[str, ...]
    last: OccurrenceView
    times: int
    earlier: tuple[OccurrenceView, ...]


def story_view(found: Explained) -> StoryView:
    told, now = found.story, found.story.now
    kind, machine_id, subject = told.names
    return StoryView(
        key=told.key,
        kind=kind,
        machine_id=machine_id,
        subject=subject,
        stands=now is not None,
        action=now.action if now else "",
        held=now.held if now else "",
        hold=now.hold if now else None,
        attempts=now.attempts if now else len(told.last.tries),
        next_attempt=_time(now.next_attempt_ms if now else None),
        can_do=found.can_do,
        last_words=found.words,
        last=_occurrence(told.last),
        times=told.times,
        earlier=tuple(_occurrence(o) for o in told.earlier),
    )


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _try(tried: Try) -> TryView:
    return TryView(
        operation=tried.operation,
        text=tried.text,
        begun=rfc3339(tried.begun_ms),
        ended=_time(tried.ended_ms),
        outcome=tried.outcome,
        error=tried.error,
        hint=tried.hint,
    )


def _occurrence(o: Occurrence) -> OccurrenceView:
    return OccurrenceView(
        opened=rfc3339(o.opened_ms),
        closed=_time(o.closed_ms),
        detected_after_ms=o.detected_after_ms,
        healed_after_ms=o.healed_after_ms,
        healed_by=_try(o.healed_by) if o.healed_by else None,
        desired=o.desired,
        observed=o.observed,
        cause=o.cause,
        origin=o.origin,
        decisions=tuple(
            SaidView(at=rfc3339(s.at_ms), decision=s.decision, next_attempt=_time(s.next_ms)) for s in o.decisions
        ),
        tries=tuple(_try(t) for t in o.tries),
    )
