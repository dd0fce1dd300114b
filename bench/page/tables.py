"""The tables that a run prints."""

from __future__ import annotations

from statistics import median

from bench.page.run import Report
from bench.queue.measure import quantile
from bench.queue.tables import table

PAINT_MS = 2_000
BUSY_PERCENT = 50


def _views(report: Report) -> str:
    rows = [
        [
            v.name,
            f"{median(v.paints_ms):,.0f}",
            f"{max(v.paints_ms):,.0f}",
            f"{v.idle.percent:.1f}",
            f"{v.changing.percent:.1f}",
            f"{100 * v.changing.script_s / v.changing.seconds:.1f}",
            f"{100 * v.changing.layout_s / v.changing.seconds:.1f}",
            str(len(v.changing.long_ms)),
            f"{max(v.changing.long_ms, default=0):,.0f}",
            f"{v.elements:,}",
        ]
        for v in report.views
    ]
    head = [
        *("view", "first useful paint ms", "worst", "idle busy %", "changing busy %", "script %", "style, layout %"),
        *("tasks > 50 ms", "longest ms", "elements"),
    ]
    return table(head, rows)


def _moved(report: Report) -> str:
    rows = []
    for m in report.moved:
        frames, typed = sorted(m.frames_ms), sorted(m.typed_ms)
        rows.append(
            [
                m.name,
                f"{len(frames):,}",
                f"{quantile(frames, 0.5):.1f}",
                f"{quantile(frames, 0.99):.1f}",
                f"{frames[-1]:.0f}",
                str(sum(ms > 50 for ms in frames)),
                f"{quantile(typed, 0.5):.0f}",
                f"{typed[-1]:.0f}",
            ]
        )
    head = ["while it changes", "frames", "p50 ms", "p99 ms", "worst", "> 50 ms", "a letter → found, p50 ms", "worst"]
    return table(head, rows)


def _aims(report: Report) -> str:
    paint = max(median(v.paints_ms) for v in report.views)
    busy = max(v.changing.percent for v in report.views)
    rows = [
        ["first useful paint, of the slowest view", f"{paint:,.0f} ms", f"< {PAINT_MS:,} ms", _word(paint < PAINT_MS)],
        [
            f"main thread at {report.plan.per_s} changes/s, of the busiest view",
            f"{busy:.0f} %",
            f"< {BUSY_PERCENT} %",
            _word(busy < BUSY_PERCENT),
        ],
    ]
    return table(["aim", "page", "aimed", ""], rows)


def _word(met: bool) -> str:
    return "met" if met else "not met"


def whole(report: Report) -> str:
    m, p = report.machine, report.plan
    noise = "unknown" if m.others_cores is None else f"{m.others_cores:.2f}"
    head = (
        f"{m.at}, Chromium {report.chromium} headless without a GPU, {m.redis}, Python {m.python}, {m.cores} cores, "
        f"of which others kept {noise} busy before. {p.machines:,} machines of {p.gpus} workers, "
        f"{p.differences} differences, {p.per_s} changes a second; {report.heap_mib:.0f} MiB of JavaScript heap."
    )
    lost = [f"the page complained: {text}" for text in report.complaints]
    return "\n\n".join([head, _views(report), _moved(report), _aims(report), *lost])
