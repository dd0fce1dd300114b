"""The tables that a run prints."""

from __future__ import annotations

from bench.queue.tables import table
from bench.stream.run import Report, Streamed


def _rows(report: Report) -> str:
    rows = [
        [
            s.what,
            f"{s.clients:,}",
            f"{s.changes:,}",
            f"{s.p50_ms:,.0f}",
            f"{s.p99_ms:,.0f}",
            f"{s.cpu_ms_per_change:,.2f}",
            f"{100 * s.cpu_s / s.seconds:,.0f}",
            f"{100 * s.idle_cpu_s / report.plan.seconds:,.0f}",
            f"{s.bytes_per_change:,.0f}",
            f"{s.joined_s:,.2f}",
            " → ".join(f"{mib:,.0f}" for mib in (s.rss_before_mib, s.rss_joined_mib, s.rss_after_mib)),
            f"{s.rss_most_mib:,.0f}",
            f"{s.told:,}",
            f"{s.gaps:,}",
            f"{s.snapshots:,}",
        ]
        for s in report.streamed
    ]
    head = [
        *("stream", "clients", "changes", "p50 ms", "p99 ms", "CPU ms a change", "CPU %", "idle %"),
        *("bytes a change", "all joined s", "RSS MiB", "most", "told at least", "gaps", "resyncs"),
    ]
    return table(head, rows)


def _ratio(what: str, one: Streamed, other: Streamed, name: str) -> list[str]:
    mine, theirs = getattr(one, name), getattr(other, name)
    return [what, f"{mine:,.2f}", f"{theirs:,.2f}", f"{theirs / mine:,.1f} ×" if mine else "–"]


def ratios(report: Report) -> str:
    by = {s.what: s for s in report.streamed}
    emp, whole = by.get("emp, few"), by.get("whole state, few")
    if emp is None or whole is None:
        return ""
    named = {
        "CPU ms a change": "cpu_ms_per_change",
        "bytes a change, to one client": "bytes_per_change",
        "change → client, p50 ms": "p50_ms",
        "change → client, p99 ms": "p99_ms",
    }
    rows = [_ratio(what, emp, whole, name) for what, name in named.items()]
    return table([f"with {emp.clients} clients", "emp", "whole state", "whole state / emp"], rows)


def whole(report: Report) -> str:
    m, p = report.machine, report.plan
    noise = "unknown" if m.others_cores is None else f"{m.others_cores:.2f}"
    head = (
        f"{m.at}, {m.redis}, Python {m.python}, {m.cores} cores, of which others kept {noise} busy. {p.machines:,} "
        f"machines of {p.gpus} workers, {p.per_s} changes a second for {p.seconds:g} s."
    )
    lost = [f"not measured: {x.peer}: {x.reason}" for x in report.missing]
    return "\n\n".join(filter(None, [head, _rows(report), ratios(report), *lost]))
