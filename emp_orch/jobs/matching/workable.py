"""Whether the fleet as desired could ever run what a lane asks: the decision, and its reason in words.

A worker that reports counts by its report; connectors that are merely down do not matter, for a report's services
are those whose connectors loaded. A worker that has not reported counts by what the file says of it, and what only
the worker can know, its hardware, is open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from emp_orch.jobs.matching.offers import SERVICE_OFFERS, Needs, Offers, lacking
from emp_orch.jobs.matching.requirements import Requirements, unmet

MAX_REASON = 1_000
MAX_GROUP = 300
MAX_GROUPS = 5
# A group of so few is named, a larger one counted.
MAX_NAMED = 2
NO_WORKERS = "the fleet has no workers"
# What every job's requirements look at; `positive` and `negative` look at more.
_ALWAYS = frozenset({"services", "hardware", "models", "customers", "workflows", SERVICE_OFFERS})
_NO_OFFERS: Mapping[str, Offers] = {}


class DesiredWorker(Struct, frozen=True, kw_only=True):
    """A worker the fleet should have. `known`: its capabilities as far as the file tells; `reported`: its own word.

    `reported` is None until it reports, and again when its report is of a generation that is no more.
    `unloaded`: why connectors of its services did not load.
    """

    worker_id: str
    machine_id: str = ""
    known: dict[str, Any]
    reported: dict[str, Any] | None = None
    unloaded: dict[str, str] = {}


class Workable(Struct, frozen=True, kw_only=True):
    """`able`: the desired workers that satisfy it by their own word, in the order given."""

    able: tuple[str, ...]


class Possible(Struct, frozen=True, kw_only=True):
    """No worker that reports could, but `ids`, which have not reported yet, may."""

    ids: tuple[str, ...]


class Unworkable(Struct, frozen=True, kw_only=True):
    """No desired worker could ever; `reason` has at most MAX_REASON characters."""

    reason: str


Verdict = Workable | Possible | Unworkable


class _Class(Struct, frozen=True, kw_only=True):
    """Workers that are equal in all that any lane asks."""

    capabilities: dict[str, Any]
    reports: bool
    unloaded: dict[str, str]
    ids: tuple[str, ...]


def workers_in_words(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def grouped(failing: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Reasons with the workers they hold for: the same reason once, the most frequent first, the rest counted."""
    groups: dict[str, list[str]] = {}
    for reason, ids in failing:
        groups.setdefault(reason, []).extend(ids)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    told: list[str] = []
    left = MAX_REASON - 100  # room for the sentence around it
    for reason, ids in ordered[:MAX_GROUPS]:
        names = " and ".join(_cut(i, 64) for i in sorted(ids))
        part = f"{names if len(ids) <= MAX_NAMED else workers_in_words(len(ids))}: {_cut(reason, MAX_GROUP)}"
        if told and len(part) > left:
            break
        told.append(part)
        left -= len(part) + 3
    rest = sum(len(ids) for _, ids in ordered[len(told) :])
    return " · ".join(told) + (f" · and {workers_in_words(rest)} for other reasons" if rest else "")


def _classes(lanes: Iterable[Requirements], workers: Sequence[DesiredWorker]) -> list[_Class]:
    asked = set(_ALWAYS)
    for requirements in lanes:
        asked.update(requirements.positive, requirements.negative)
    found: dict[tuple[bool, bytes], tuple[dict[str, Any], dict[str, str], list[str]]] = {}
    for worker in workers:
        reports = worker.reported is not None
        source = worker.known if worker.reported is None else worker.reported
        capabilities = {name: value for name, value in source.items() if name in asked}
        key = (reports, msgspec.json.encode([capabilities, worker.unloaded], order="deterministic"))
        found.setdefault(key, (capabilities, worker.unloaded, []))[2].append(worker.worker_id)
    return [
        _Class(capabilities=capabilities, reports=reports, unloaded=unloaded, ids=tuple(ids))
        for (reports, _), (capabilities, unloaded, ids) in found.items()
    ]


def _judge(
    requirements: Requirements, classes: Sequence[_Class], offers: Mapping[str, Offers]
) -> tuple[list[int], list[int], list[tuple[str, ...]]]:
    """The classes that satisfy by report, those that may, and each class's reasons."""
    reasons = [
        unmet(requirements, c.capabilities, open_hardware=not c.reports, unloaded=c.unloaded, offers=offers)
        for c in classes
    ]
    able = [i for i, c in enumerate(classes) if c.reports and not reasons[i]]
    possible = [i for i, c in enumerate(classes) if not c.reports and not reasons[i]]
    return able, possible, reasons


def _reason(classes: Sequence[_Class], reasons: Sequence[tuple[str, ...]]) -> str:
    if not classes:
        return NO_WORKERS
    failing = (
        (f"{'' if c.reports else '(not reporting yet) '}{'; '.join(why)}", c.ids)
        for c, why in zip(classes, reasons, strict=True)
    )
    return _cut(f"no worker of the fleet could run it: {grouped(failing)}", MAX_REASON)


def lacked_by_all(
    requirements: Requirements,
    workers: Sequence[tuple[Mapping[str, Any], Sequence[tuple[str, str]]]],
    offers: Mapping[str, Offers],
) -> str:
    """`no worker has model a (checked 3 workers of machine m)`: what none has of those that run the service; '' if some
    has everything, or lacks something else. `workers`: capabilities, and (worker, machine) of those that have them.
    """
    service = requirements.service
    asked = [(c, ids) for c, ids in workers if service in _listed(c.get("services"))]
    if requirements.needs is None or not asked:
        return ""
    lacks = [lacking(requirements.needs, service, c, offers) for c, _ in asked]
    nodes = set.intersection(*(set(n.nodes if n else ()) for n in lacks))
    models = set.intersection(*(set(n.models if n else ()) for n in lacks))
    if not nodes and not models:
        return ""
    named = Needs(nodes=tuple(sorted(nodes)), models=tuple(sorted(models))).in_words
    ids = [pair for _, pairs in asked for pair in pairs]
    machines = sorted({machine for _, machine in ids if machine})
    rest = len(machines) - MAX_GROUPS
    shown = ", ".join(machines[:MAX_GROUPS]) + (f" and {rest} more" if rest > 0 else "")
    where = f" of machine{'s' * (len(machines) > 1)} {shown}" if machines else ""
    return f"no worker has {_cut(named, MAX_GROUP)} (checked {workers_in_words(len(ids))}{where})"


def _listed(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def judge_all(
    lanes: Mapping[str, Requirements], workers: Sequence[DesiredWorker], offers: Mapping[str, Offers] = _NO_OFFERS
) -> dict[str, Verdict]:
    """The verdict for each lane. Costs classes of equal workers × lanes, not workers × lanes.

    `offers`: digest → what a service has, of those that workers report.
    """
    classes = _classes(lanes.values(), workers)
    machines = {w.worker_id: w.machine_id for w in workers}
    order = {worker.worker_id: i for i, worker in enumerate(workers)}
    members: dict[tuple[int, ...], tuple[str, ...]] = {}  # many lanes have the same able workers

    def ids(chosen: list[int]) -> tuple[str, ...]:
        key = tuple(chosen)
        if key not in members:
            members[key] = tuple(sorted((w for i in key for w in classes[i].ids), key=order.__getitem__))
        return members[key]

    verdicts: dict[str, Verdict] = {}
    for lane, requirements in lanes.items():
        able, possible, reasons = _judge(requirements, classes, offers)
        if able:
            verdicts[lane] = Workable(able=ids(able))
        elif possible:
            verdicts[lane] = Possible(ids=ids(possible))
        else:
            asked = [(c.capabilities, [(i, machines[i]) for i in c.ids]) for c in classes] if requirements.needs else []
            plain = lacked_by_all(requirements, asked, offers)
            verdicts[lane] = Unworkable(reason=_cut(plain or _reason(classes, reasons), MAX_REASON))
    return verdicts


def judge(
    requirements: Requirements, workers: Sequence[DesiredWorker], offers: Mapping[str, Offers] = _NO_OFFERS
) -> Verdict:
    """The verdict for one lane."""
    return judge_all({"": requirements}, workers, offers)[""]
