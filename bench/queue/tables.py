"""The tables that a run prints: Markdown, aligned so that they read well on a terminal too."""

from __future__ import annotations

from collections.abc import Sequence

from bench.queue.aims import Against, Verdict
from bench.queue.report import Report, Summary

# With more than this of others' work beside it, a run says so.
QUIET_CORES = 0.2

_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("enqueue /s", "one_per_s", 0),
    ("bulk or 100 at once /s", "many_per_s", 0),
    ("no-op jobs/s", "noop_per_s", 0),
    ("Redis µs/job: enqueue", "enqueue_us", 1),
    ("process", "process_us", 1),
    ("life", "life_us", 1),
    ("commands/job", "life_commands", 1),
    ("dispatch p50 ms", "dispatch_p50_ms", 2),
    ("p99 ms", "dispatch_p99_ms", 2),
    ("idle commands/s", "idle_per_s", 2),
    ("sent", "idle_sent_per_s", 2),
    ("heartbeats", "idle_heartbeats_per_s", 2),
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 2) if k == 0 else "-" * (w + 1) + ":" for k, w in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def absolute(summaries: Sequence[Summary]) -> str:
    rows = [[s.peer, *(_number(s.get(metric), digits) for _, metric, digits in _COLUMNS)] for s in summaries]
    return table(["peer", *(name for name, _, _ in _COLUMNS)], rows)


def _verdict(v: Verdict) -> list[str]:
    aimed = "" if v.aim.aimed is None else f"{v.aim.bound} {v.aim.aimed:g}"
    if v.aim.against is not Against.NOTHING and aimed:
        aimed += f" × {v.aim.against}"
    other = "–" if v.other is None or v.aim.against is Against.NOTHING else f"{_number(v.other, 2)} ({v.whose})"
    rounds = f"{min(v.by_round):.2f} – {max(v.by_round):.2f}" if len(v.by_round) > 1 else ""
    match v.met:
        case True:
            judged = "met"
        case False:
            judged = "not met"
        case None:
            judged = "no figure" if v.aim.aimed is not None else ""
    return [v.aim.what, _number(v.emp, 2), other, _number(v.ratio, 2), rounds, aimed, judged]


def ratios(verdicts: Sequence[Verdict]) -> str:
    return table(["aim", "emp", "other", "ratio", "by round", "aimed", ""], [_verdict(v) for v in verdicts])


def claims(report: Report) -> str:
    """What a claim costs, and how many times that of one beside which nothing waits."""
    first = report.claims[0]
    rows = []
    for c in report.claims:
        times = [_number(c.client_us / first.client_us, 2), _number(c.redis_us / (first.redis_us or 1.0), 2)]
        costs = [_number(c.client_us, 0), _number(c.client_p99_us, 0), times[0], _number(c.redis_us, 0), times[1]]
        rows.append([c.case, *costs, _number(c.fill_per_s, 0)])
    head = ["one claim of emp", "client µs, median", "p99", "× first", "Redis CPU µs", "× first", "filled at /s"]
    return table(head, rows)


def limits(report: Report) -> str:
    rows = [[x.command, str(x.clients), _number(x.per_s, 0)] for x in report.limits]
    return table(["plain Redis", "clients", "/s"], rows)


def whole(report: Report, verdicts: Sequence[Verdict]) -> str:
    """Everything a run prints at its end."""
    m = report.machine
    noise = "unknown" if m.others_cores is None else f"{m.others_cores:.2f} of {m.cores}"
    parts = [
        f"{m.at}: {m.redis}, Python {m.python}, {m.cores} cores; cores that others kept busy meanwhile: {noise}. "
        f"Medians of {report.plan.rounds} rounds.",
    ]
    if m.others_cores is not None and m.others_cores > QUIET_CORES:
        parts.append(
            "**The machine was busy with others' work: these figures judge nothing. Run it again when it is quiet.**"
        )
    parts += [absolute(report.summaries), ratios(verdicts)]
    if report.claims:
        parts.append(claims(report))
    if report.limits:
        parts.append(limits(report))
    parts += [f"{missing.peer}: no figures: {missing.reason}" for missing in report.missing]
    return "\n\n".join(parts)
