"""The tables that a run prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.pools.lab import Stretch
from bench.pools.pages import Seen
from bench.pools.run import NAMED, POOL, Report
from bench.queue.tables import table


def whole(report: Report) -> str:
    parts = [_where(report), _stretches(report.stretches), _commands(report.stretches)]
    if ratios := _ratios(report):
        parts.append(ratios)
    if report.pages:
        parts.append(_pages(report.pages))
    return "\n\n".join([*parts, _ends(report), _churn(report), _memory(report)])


def _where(report: Report) -> str:
    m, p = report.machine, report.plan
    load = f"load {m.load_before[0]:.1f} → {m.load_after[0]:.1f}"
    churn = f"churn {p.churn:.0%} a minute each way for {p.minutes:g} min"
    jobs = f"{p.jobs:,} jobs in it ({p.per_s:.0f} a second, {p.job_s[0]:g} to {p.job_s[1]:g} s each)"
    short = f"lease {p.lease_s} s, forget_after {p.forget_after_s} s"
    where = f"{m.at}: {m.redis}, Python {m.python}, {m.cores} cores, {load}"
    return f"{where}; {p.members:,} members, {churn}, {jobs}, {short}"


def _stretches(stretches: Sequence[Stretch]) -> str:
    head = ["stretch", "s", "members", "jobs", "API CPU s", "reconciler", "Redis", "event log", "commands/s"]
    head += ["API % of a core", "members CPU s", "others CPU s"]
    rows = []
    for one in stretches:
        s = one.spent
        cpu = [f"{s.cpu_s[name]:.1f}" for name in ("api", "reconcile", "redis", "eventlog")]
        share = f"{s.cpu_s['api'] / s.wall_s:.0%}"
        rows.append([one.what, f"{s.wall_s:.0f}", f"{one.members:,}", f"{s.jobs:,}", *cpu, f"{s.commands_per_s:,.0f}"])
        rows[-1] += [share, f"{s.cpu_s['members']:.1f}", f"{s.others_s:.1f}"]
    return table(head, rows)


def _commands(stretches: Sequence[Stretch]) -> str:
    lines = []
    for one in stretches:
        s = one.spent
        named = ", ".join(f"{name} {calls / s.wall_s:,.0f}" for name, calls in s.named)
        lines.append(f"- {one.what}, commands a second: {named}")
    return "\n".join(lines)


def _ratios(report: Report) -> str:
    by = {one.what: one.spent for one in report.stretches}
    rows = []
    for what in ("join", "idle", "jobs"):
        pool, named = by.get(f"{POOL}: {what}"), by.get(f"{NAMED}: {what}")
        if pool is None or named is None:
            continue
        for name, words in (("api", "API"), ("reconcile", "reconciler"), ("redis", "Redis")):
            ours, theirs = pool.cpu_s[name] / pool.wall_s, named.cpu_s[name] / named.wall_s
            ratio = f"{ours / theirs:.2f}" if theirs else "–"
            rows.append([f"{what}: {words}, ms of CPU a second", f"{ours * 1e3:,.0f}", f"{theirs * 1e3:,.0f}", ratio])
        ours, theirs = pool.commands_per_s, named.commands_per_s
        rows.append([f"{what}: commands of Redis a second", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}"])
    return table(["a pool through the gate, beside named machines", "pool", "named", "ratio"], rows) if rows else ""


def _pages(seen: Sequence[Seen]) -> str:
    head = ["the page in the midst of the churn", "painted ms", "busy %", "longest task ms", "elements"]
    rows = []
    for s in seen:
        figures = (f"{s.painted_ms:,.0f}", f"{s.busy_percent:.0f}", f"{s.longest_ms:.0f}", f"{s.elements:,}")
        rows.append([s.view, *figures])
    return table(head, rows)


def _ends(report: Report) -> str:
    head = ["fleet", "submitted", "ended once", "completed", "ended badly", "runs that went back"]
    head.append("join p50 / p95 / most ms")
    rows = []
    for name, e in report.ends.items():
        waits = " / ".join(f"{ms:,.0f}" for ms in report.join_ms[name])
        counts = (e.submitted, e.once, e.completed, sum(e.badly.values()), e.requeued)
        rows.append([name, *(f"{n:,}" for n in counts), waits])
    return table(head, rows)


def _churn(report: Report) -> str:
    c = report.churned
    lines = [
        f"{c.joined} joined, {c.left} left, {c.vanished} vanished, {c.held} of them with a job in hand.",
        f"From a vanishing until its job ran elsewhere: {_spread(c.again_s)}.",
        f"From a vanishing until it was forgotten: {_spread(c.forgotten_s)}.",
        f"Left of them in Redis {c.left_s:.0f} s later: {', '.join(c.left_over[:9]) or 'nothing'}.",
    ]
    lines += [f"Fault: {fault}" for fault in c.faults[:10]]
    return "\n".join(f"- {line}" for line in lines)


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.1f} s in the middle, {max(seconds):.1f} s at most"


def _memory(report: Report) -> str:
    head = ["", "Redis MiB", "keys", "API RSS MiB", "reconciler", "Redis RSS"]
    rows = []
    for when, m in report.memory.items():
        rss = [f"{m.rss_mib[name]:,.0f}" for name in ("api", "reconcile", "redis")]
        rows.append([when, f"{m.redis_bytes / 1024**2:,.1f}", f"{m.keys:,}", *rss])
    kinds = ", ".join(f"{name} {n:,}" for name, n in sorted(report.keys.items(), key=lambda pair: -pair[1]))
    return f"{table(head, rows)}\n\nKeys after the churn: {kinds}."
