"""The tables that a run prints: Markdown, aligned so that they read well on a terminal too."""

from __future__ import annotations

from collections.abc import Sequence

from bench.queue.tables import QUIET_CORES, table
from bench.reconcile.aims import Verdict
from bench.reconcile.figures import Report
from bench.reconcile.ticks import TickCost

_COSTS: tuple[tuple[str, str, int], ...] = (
    ("generation ms", "generation_ms", 0),
    ("first read + diff ms", "first_ms", 1),
    ("CPU ms", "first_cpu_ms", 1),
    ("no-op tick CPU ms", "noop_cpu_ms", 2),
    ("p99", "noop_cpu_p99_ms", 2),
    ("wall", "noop_wall_ms", 2),
    ("ticks", "noop_ticks", 0),
    ("1 % changed: CPU ms", "changed_cpu_ms", 2),
    ("wall", "changed_wall_ms", 2),
    ("RSS MiB", "rss_mib", 0),
    ("heartbeats/s", "beats_per_s", 0),
)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def healing(report: Report) -> str:
    rows = [
        [h.what, str(len(h.took_ms)), *(_number(h.quantile(part), 1) for part in (0.5, 0.99, 0.0))]
        for h in report.healing
    ]
    return table(["kill -9 → runs, or is idle, again", "kills", "p50 ms", "p99 ms", "least ms"], rows)


def costs(found: Sequence[TickCost]) -> str:
    rows = []
    for c in found:
        figures = [_number(getattr(c, name), digits) for _, name, digits in _COSTS]
        rows.append([f"{c.machines:,} × {c.workers // c.machines}", *figures])
    return table(["machines × workers", *(head for head, _, _ in _COSTS)], rows)


def detection(report: Report) -> str:
    d = report.detection
    if d is None:
        return ""
    rows = [
        [what, str(d.changes), *(_number(d.quantile(name, part), 1) for part in (0.5, 0.99, 0.0))]
        for what, name in (("in the status document", "status_ms"), ("in the answer of GET /api/drift", "api_ms"))
    ]
    head = f"a change in a fleet of {d.machines:,} machines → seen"
    return table([head, "changes", "p50 ms", "p99 ms", "least ms"], rows)


def _verdict(v: Verdict) -> list[str]:
    other = "" if not v.whose else f"{_number(v.other, 2)} ({v.whose})"
    ratio = _number(v.judged, 3) if v.whose else ""
    unit = "×" if v.whose else v.unit
    aimed = "" if v.at_most is None else f"≤ {v.at_most:g} {unit}"
    judged = {True: "met", False: "not met", None: "no figure" if v.at_most is not None else ""}[v.met]
    return [v.what, f"{_number(v.figure, 2)} {v.unit}", other, ratio, aimed, judged]


def aims(found: Sequence[Verdict]) -> str:
    return table(["aim", "emp", "other", "ratio", "aimed", ""], [_verdict(v) for v in found])


def whole(report: Report, verdicts: Sequence[Verdict]) -> str:
    """Everything a run prints at its end."""
    m = report.machine
    noise = "unknown" if m.others_cores is None else f"{m.others_cores:.2f} of {m.cores}"
    parts = [
        f"{m.at}: {m.redis}, Python {m.python}, {m.cores} cores; cores that others kept busy before and between the "
        f"parts: {noise}. Costs of ticks are medians of {report.plan.rounds} rounds; of {report.plan.once_from:,} "
        "machines or more, of one."
    ]
    if m.others_cores is not None and m.others_cores > QUIET_CORES:
        parts.append(
            "**The machine was busy with others' work: these figures judge nothing. Run it again when it is quiet.**"
        )
    parts += [healing(report)] if report.healing else []
    parts += [costs(report.costs)] if report.costs else []
    parts += [detection(report)] if report.detection else []
    parts.append(aims(verdicts))
    parts += [f"{missing.peer}: no figures: {missing.reason}" for missing in report.missing]
    return "\n\n".join(parts)
