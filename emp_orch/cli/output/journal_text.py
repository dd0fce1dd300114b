"""An entry of the journal as one line: when, what, of whom, why, and how long it took."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from emp_orch.cli.output.text import age
from emp_orch.fleet.journal.entries import RUN, machine_of, number, pool_of, said, subject_of
from emp_orch.plaintext import one_line

if TYPE_CHECKING:
    from emp_orch.store.fleet.events import Event


def moment(ms: int) -> str:
    """A time as this host's clocks show it, with milliseconds."""
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def line(entry: Event) -> str:
    """`time  what  subject  details`, on one line whatever the entry holds."""
    data = entry.data
    machine, subject = machine_of(data), subject_of(data)
    about = (machine if subject in (machine, "") else f"{machine} {subject}") or pool_of(data)
    word, details = _WORDS.get(entry.type, (entry.type.replace("_", " "), _any))
    return one_line(f"{moment(entry.at_ms)}  {word:<16} {about or 'fleet':<36} {details(data)}".rstrip())


def _opened(data: dict[str, Any]) -> str:
    late = number(data, "detected_after_ms")
    seen = "" if late is None else f" (seen after {age(late)})"
    origin = said(data, "origin")
    where = f"  [{origin}]" if origin else ""
    differs = f"{said(data, 'kind')}: {said(data, 'desired')} → {said(data, 'observed')}"
    return f"{differs}; {said(data, 'cause')}{seen}{where}"


def _closed(data: dict[str, Any]) -> str:
    took = number(data, "healed_after_ms")
    return f"{said(data, 'kind')} healed" + ("" if took is None else f" after {age(took)}")


def _decided(data: dict[str, Any]) -> str:
    decision, operation = said(data, "decision"), said(data, "operation")
    kind = said(data, "key").partition("/")[0]
    if decision == RUN:
        return f"{kind}: {verb(operation)} now"
    when = number(data, "next_ms")
    return f"{kind}: {verb(operation)} waits: {decision}" + ("" if when is None else f"; next at {moment(when)[11:]}")


def verb(operation: str) -> str:
    """The verb of an operation's key, as a person says it."""
    return operation.partition("/")[0].replace("-", " ")


def _ended(data: dict[str, Any]) -> str:
    error, hint = said(data, "error"), said(data, "hint")
    outcome = said(data, "outcome") or ("failed" if error else "done")
    return (
        f"{verb(said(data, 'operation'))}: {outcome}" + (f": {error}" if error else "") + (f" ({hint})" if hint else "")
    )


def _person(data: dict[str, Any]) -> str:
    reason, by = said(data, "reason"), said(data, "by")
    return (reason or "no reason given") + (f" (by {by})" if by else "")


def _reason(data: dict[str, Any]) -> str:
    operation = said(data, "operation")
    return ": ".join(filter(None, (verb(operation) if operation else "", said(data, "reason"))))


def _hinted(data: dict[str, Any]) -> str:
    hint = said(data, "hint")
    return said(data, "reason") + (f" ({hint})" if hint else "")


def _machines(data: dict[str, Any]) -> str:
    found = data.get("machines")
    names = [str(m) for m in found] if isinstance(found, list) else []
    generation = number(data, "generation")
    return ("" if generation is None else f"generation {generation}: ") + ", ".join(names[:10])


def _back(data: dict[str, Any]) -> str:
    return f"generation {number(data, 'generation')} again, as {number(data, 'as')}: {said(data, 'reason')}"


def _scaled(data: dict[str, Any]) -> str:
    return f"held at {number(data, 'size')}: {_person(data)}"


def _follows(data: dict[str, Any]) -> str:
    return f"follows its queue; was {_scaled(data)}"


def _resized(data: dict[str, Any]) -> str:
    was = number(data, "from")
    return f"{'' if was is None else f'{was} → '}{number(data, 'to')}: {said(data, 'reason')}"


def _joined(data: dict[str, Any]) -> str:
    name = said(data, "name")
    return said(data, "how") + (f", calls itself {name}" if name else "")


def _forgotten(data: dict[str, Any]) -> str:
    how, why = said(data, "how"), said(data, "why")
    return why if why.startswith(how) else f"{how}; {why}"


def _preempted(data: dict[str, Any]) -> str:
    returned = number(data, "returned") or 0
    jobs = "1 job went" if returned == 1 else f"{returned} jobs went"
    return f"{said(data, 'why') or 'it was told to end'}; {jobs} back to where they were"


def _any(data: dict[str, Any]) -> str:
    import msgspec

    told = {k: v for k, v in data.items() if k not in ("type", "machine_id", "subject")}
    return " ".join(f"{k}={v if isinstance(v, str) else msgspec.json.encode(v).decode()}" for k, v in told.items())


_WORDS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "drift_opened": ("drift opened", _opened),
    "decision": ("decided", _decided),
    "operation_begun": ("begun", lambda data: said(data, "text")),
    "operation_sent": ("sent", lambda data: f"{verb(said(data, 'operation'))}: the machine has it"),
    "operation_ended": ("ended", _ended),
    "drift_closed": ("drift closed", _closed),
    "quarantined": ("quarantined", _reason),
    "released": ("released", _reason),
    "breaker_opened": ("breaker opened", _reason),
    "breaker_trial": ("breaker tries", _machines),
    "breaker_closed": ("breaker closed", _reason),
    "rollout_stalled": ("rollout stalled", _machines),
    "rolled_back": ("rolled back", _back),
    "paused": ("paused", _person),
    "pause_lifted": ("pause lifted", _person),
    "drained": ("drained", _person),
    "drain_lifted": ("drain lifted", _person),
    "scaled": ("scaled", _scaled),
    "scale_lifted": ("scale lifted", _follows),
    "pool_resized": ("pool resized", _resized),
    "member_asked": ("member asked for", _reason),
    "member_joined": ("member joined", _joined),
    "member_removed": ("member removed", _reason),
    "member_forgotten": ("member forgotten", _forgotten),
    "preempted": ("preempted", _preempted),
    "jobs_lost": ("jobs lost", _hinted),
    "redis_evicted": ("Redis evicts", _hinted),
    "redis_replicas": ("Redis replicas", _hinted),
    "redis_repaired": ("Redis repaired", _hinted),
    "jobs_put_back": ("jobs put back", _hinted),
}
