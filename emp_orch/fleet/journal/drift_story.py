"""The story of one drift, from the journal and what stands now: when, why, what was tried, what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from msgspec import Struct, structs

from emp_orch.fleet.journal.entries import number, said
from emp_orch.fleet.policy.item import Item

# Earlier occurrences of the same drift that are told; the journal has them all.
EARLIER = 5


class Noted(Protocol):
    """An entry of the journal."""

    @property
    def at_ms(self) -> int: ...

    @property
    def type(self) -> str: ...

    @property
    def data(self) -> dict[str, Any]: ...


class Try(Struct, frozen=True, kw_only=True):
    """An operation that was begun against a drift. `outcome`: done, failed, or empty while it is not known."""

    operation: str
    text: str
    begun_ms: int
    ended_ms: int | None = None
    outcome: str = ""
    error: str = ""
    hint: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """What was decided, where that changed: `run`, or why not now."""

    at_ms: int
    decision: str
    next_ms: int | None = None


class Occurrence(Struct, frozen=True, kw_only=True):
    """One time that the drift stood. `closed_ms` None: it stands. `detected_after_ms` None: no report tells when it
    began."""

    opened_ms: int
    detected_after_ms: int | None = None
    closed_ms: int | None = None
    healed_after_ms: int | None = None
    desired: str = ""
    observed: str = ""
    cause: str = ""
    origin: str = ""
    decisions: tuple[Said, ...] = ()
    tries: tuple[Try, ...] = ()

    @property
    def healed_by(self) -> Try | None:
        """The last operation begun against it; None while it stands, or when it went without one."""
        return self.tries[-1] if self.tries and self.closed_ms is not None else None


class DriftStory(Struct, frozen=True, kw_only=True):
    """`now` is what stands, None for a drift that has closed. `earlier` are former times, the latest first."""

    key: str
    now: Item | None
    last: Occurrence
    earlier: tuple[Occurrence, ...] = ()
    times: int = 1

    @property
    def names(self) -> tuple[str, str, str]:
        """Kind, machine, subject."""
        kind, machine_id, subject = [*self.key.split("/", 2), "", ""][:3]
        return kind, machine_id, subject


def drift_story(key: str, now: Item | None, entries: Iterable[Noted]) -> DriftStory | None:
    """All that is known of drift `key`; None when nothing is. `entries`: the journal's, oldest first."""
    times = _occurrences(key, entries)
    if now is not None:
        stands = times.pop() if times and times[-1].closed_ms is None else Occurrence(opened_ms=now.since_ms)
        drift = now.drift
        words = {"desired": drift.desired, "observed": drift.observed, "cause": drift.cause, "origin": drift.origin}
        times.append(structs.replace(stands, opened_ms=now.since_ms, **words))
    if not times:
        return None
    *before, last = times
    return DriftStory(key=key, now=now, last=last, earlier=tuple(reversed(before[-EARLIER:])), times=len(times))


def _occurrences(key: str, entries: Iterable[Noted]) -> list[Occurrence]:
    found: list[Occurrence] = []
    ours: set[str] = set()
    for entry in entries:
        data, about = entry.data, said(entry.data, "key") == key
        standing = found[-1] if found and found[-1].closed_ms is None else None
        if entry.type == "drift_opened" and about:
            if standing is None:
                found.append(_opened(entry))
        elif entry.type == "drift_closed" and about:
            healed = number(data, "healed_after_ms")
            if standing is None:  # its beginning fell out of the journal
                standing = structs.replace(_opened(entry), opened_ms=entry.at_ms - (healed or 0))
                found.append(standing)
            found[-1] = structs.replace(standing, closed_ms=entry.at_ms, healed_after_ms=healed)
        elif entry.type == "decision" and about and standing is not None:
            ours.add(said(data, "operation"))
            told = Said(at_ms=entry.at_ms, decision=said(data, "decision"), next_ms=number(data, "next_ms"))
            found[-1] = structs.replace(standing, decisions=(*standing.decisions, told))
        elif entry.type == "operation_begun" and standing is not None and said(data, "operation") in ours:
            tried = Try(operation=said(data, "operation"), text=said(data, "text"), begun_ms=entry.at_ms)
            found[-1] = structs.replace(standing, tries=(*standing.tries, tried))
        elif entry.type == "operation_ended" and found and said(data, "operation") in ours:
            # A machine may say so only after what it did has shown.
            found[-1] = structs.replace(found[-1], tries=_ended(found[-1].tries, entry))
    return found


def _opened(entry: Noted) -> Occurrence:
    data = entry.data
    return Occurrence(
        opened_ms=entry.at_ms,
        detected_after_ms=number(data, "detected_after_ms"),
        desired=said(data, "desired"),
        observed=said(data, "observed"),
        cause=said(data, "cause"),
        origin=said(data, "origin"),
    )


def _ended(tries: tuple[Try, ...], entry: Noted) -> tuple[Try, ...]:
    """`tries` with the outcome of the last open one of this operation."""
    key = said(entry.data, "operation")
    for place in reversed(range(len(tries))):
        if tries[place].operation == key and tries[place].ended_ms is None:
            outcome = {name: said(entry.data, name) for name in ("outcome", "error", "hint")}
            ended = structs.replace(tries[place], ended_ms=entry.at_ms, **outcome)
            return (*tries[:place], ended, *tries[place + 1 :])
    return tries


def closed_keys(entries: Sequence[Noted]) -> list[str]:
    """Drifts that the journal knows, the one that closed last first."""
    keys = (said(e.data, "key") for e in reversed(entries) if e.type == "drift_closed")
    return list(dict.fromkeys(filter(None, keys)))


def meant(words: Sequence[str], standing: Sequence[str], closed: Sequence[str]) -> list[str]:
    """The drifts that `words` may mean: a key or a part of one, or MACHINE [SUBJECT]. Those that stand come first: what
    has closed is meant only when nothing that stands fits. No words mean all that stand.
    """
    if not words:
        return list(standing)
    if len(words) == 1 and words[0] in (*standing, *closed):
        return [words[0]]
    for keys in (standing, closed):
        named = [k for k in keys if _names(words, k)]
        found = named or [k for k in keys if len(words) == 1 and words[0] in k]
        if found:
            return found
    return []


def _names(words: Sequence[str], key: str) -> bool:
    kind, machine_id, subject = [*key.split("/", 2), "", ""][:3]
    if len(words) == 1:
        return words[0] in (machine_id, subject)
    return words[0] == machine_id and words[1] in (subject, kind)
