"""`emp status`: one screen that says what runs, what does not, and where to look."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.errors import EmpError, Exit, UsageError
from emp_orch.plaintext import many_lines, one_line

if TYPE_CHECKING:
    from emp_orch.control.status.overview import MachineNow, Overview, Part
    from emp_orch.fleet.model.observed import ConnectorReport, SeenWorker
    from emp_orch.layout import Layout

# Lines of each kind on one screen; what is not well comes first.
MACHINES = 15
WORKERS = 16
DRIFTS = 8
_CODES = {"everything runs": 0, "partly": 2, "nothing runs": 1}


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every machine, worker and drift, however many.")
@click.option("--host", is_flag=True, help="Not this folder's fleet, but all of this user on this host.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_obj
def status(directory: Path, everything: bool, host: bool, as_json: bool) -> None:
    """Show what runs: control plane, machines, workers, jobs, drift.

    Exit: 0 everything runs, 1 nothing runs, 2 partly, 3 it cannot be told: the fleet is another user's.
    """
    from emp_orch import settings as settings_files
    from emp_orch.control.status.overview import look
    from emp_orch.layout import Layout

    if host:
        from emp_orch.cli.inspect.status_host import show

        sys.exit(show(as_json=as_json))
    layout = Layout(directory)
    try:
        found = asyncio.run(look(layout, settings_files.load(layout)))
    except EmpError as e:
        _say_what_runs(layout, e)
        raise
    if as_json:
        import json

        click.echo(json.dumps(as_document(found), indent=2))
    else:
        from emp_orch.cli.output.progress import colour

        text = many_lines(screen(found, everything=everything))
        click.echo(painted(text) if colour() else text)
    sys.exit(_CODES[found.verdict])


def _say_what_runs(layout: Layout, error: EmpError) -> None:
    """Codes 1 and 2 mean something here, also when a file, or its absence, keeps us from saying more."""
    from emp_orch.control.host.orphans import anything_runs
    from emp_orch.host import ownership

    if isinstance(error, ownership.CopiedFolder):
        error.exit_code, error.message = Exit.FAILED, f"nothing runs: {error.message}"
        return
    try:
        found = ownership.look(layout.root)
        error.exit_code = Exit.USAGE if found.running or anything_runs(layout) else Exit.FAILED
    except ownership.ForeignFolder:
        return
    if (trouble := found.trouble) is not None:
        error.message, error.hint = trouble.message, trouble.hint
    elif isinstance(error, UsageError) and error.exit_code is Exit.FAILED:
        error.message = f"nothing runs: {error.message}"


def as_document(found: Overview) -> dict[str, Any]:
    """Everything that one look saw, for programs."""
    import msgspec

    from emp_orch.control.status.pools import pools_now
    from emp_orch.store.redis.client import redacted

    difference = found.difference
    document: dict[str, Any] = {
        "verdict": found.verdict,
        "fleet": found.settings.fleet,
        "generation": found.generation,
        "moved_from": found.moved_from,
        "urls": {"page": found.settings.monitor.url, "api": found.settings.api.url},
        "control_plane": {
            "supervisord": found.supervisord,
            "parts": found.parts,
            "redis": {
                "embedded": found.settings.embedded,
                "url": redacted(found.settings.redis_url),
                "ok": not found.redis_trouble,
                "error": found.redis_trouble,
                "lost": difference.redis.lost if difference else None,
                "eviction": difference.redis.eviction if difference else "",
                "alone": difference.redis.alone if difference else "",
            },
            "reconciler": {
                "silent": found.reconciler_silent,
                "age_ms": difference.status_age_ms if difference else None,
                "paused": difference.paused if difference else "",
            },
        },
        "overrides": difference.overrides if difference else None,
        "breaker": difference.breaker if difference else None,
        "rollout": difference.rollout if difference else None,
        "pools": []
        if difference is None
        else [{**msgspec.to_builtins(p), "there": p.there} for p in pools_now(difference)],
        "machines": found.machines,
        "workers": [{"seen_ms": w.seen_ms, **msgspec.to_builtins(w.report)} for w in found.workers],
        "jobs": found.jobs,
        "drift": difference.drift if difference else None,
        "orphans": [{"machine_id": o.machine_id, "program": o.program, "pid": o.pid} for o in found.orphans],
    }
    built: dict[str, Any] = msgspec.to_builtins(document)
    return built


def screen(found: Overview, *, everything: bool = False) -> str:
    """The whole look as text."""
    sections = [
        _head(found),
        _plane(found),
        _pools(found),
        _machines(found, None if everything else MACHINES),
        _workers(found, None if everything else WORKERS),
        _rest(found, None if everything else DRIFTS),
    ]
    return "\n\n".join(s for s in sections if s)


def _head(found: Overview) -> str:
    generation = f"generation {found.generation}" if found.generation else "no generation yet"
    lines = [
        f"{found.settings.fleet}: {found.verdict}, {generation}",
        f"  page  {found.settings.monitor.url}",
        f"  API   {found.settings.api.url}",
    ]
    if found.verdict == "nothing runs":
        lines.append("  next  emp apply")
    elif found.verdict == "partly":
        lines.append("  next  emp doctor · emp diff · emp explain · emp logs")
    lines += _standing(found)
    if found.moved_from:
        lines.append(
            f"  moved   this folder was moved from {found.moved_from} while its fleet ran, which keeps its old paths:"
        )
        lines.append("          `emp down` here ends it, and `emp apply` goes on here")
    return "\n".join(lines)


def _standing(found: Overview) -> list[str]:
    """What people and policies hold up."""
    from emp_orch.cli.output.holds import held_lines

    if found.difference is None:
        return []
    return [f"  {word:<7} {one_line(line)}" for word, line in held_lines(found.difference)]


def _plane(found: Overview) -> str:
    from emp_orch.cli.output.text import table

    rows = [_part_row(p, found) for p in found.plane]
    if not found.settings.embedded:
        # First of the parts, as where it is one of them.
        state = "ERROR" if found.redis_trouble else "answers"
        rows.insert(len(rows) - len(found.parts), ("redis", state, "-", "-", _redis_detail(found)))
    return table(("CONTROL PLANE", "STATE", "PID", "UP", ""), rows)


def _part_row(part: Part, found: Overview) -> tuple[str, str, str, str, str]:
    from emp_orch.cli.output.text import age

    details = {"redis": lambda: _redis_detail(found), "reconcile": lambda: _reconciler_detail(found)}
    detail = part.detail or details.get(part.name, str)()
    return part.name, part.state, str(part.pid or "-"), age(part.up_ms), detail


def _redis_detail(found: Overview) -> str:
    from emp_orch.store.redis.client import redacted

    if found.redis_trouble:
        return found.redis_trouble
    return ("embedded, " if found.settings.embedded else "") + redacted(found.settings.redis_url)


def _reconciler_detail(found: Overview) -> str:
    from emp_orch.cli.output.text import age

    if found.difference is None:
        return ""
    if found.difference.paused:
        return f"paused: {found.difference.paused}"
    if found.difference.status_age_ms is None:
        return "has not looked yet"
    word = "silent: last look" if found.reconciler_silent else "last look"
    return f"{word} {age(found.difference.status_age_ms)} ago"


def _pools(found: Overview) -> str:
    from emp_orch.cli.inspect.pools import pool_table
    from emp_orch.control.status.pools import pools_now

    shown = pools_now(found.difference) if found.difference is not None else ()
    return pool_table(shown) if shown else ""


def _machines(found: Overview, limit: int | None) -> str:
    from emp_orch.cli.output.text import table

    if not found.machines:
        return "" if found.difference is not None and found.difference.desired.pools else "no machines"
    shown, more = _cut(found.machines, limit, [m.well for m in found.machines], "machine", "ready")
    rows = [_machine_row(m) for m in shown]
    return table(("MACHINE", "STATUS", "PROGRAMS", "WORKERS", "REPORT", "UP", "HEALTH"), rows) + more


def _machine_row(m: MachineNow) -> tuple[str, ...]:
    from emp_orch.cli.output.text import age

    workers = ", ".join(f"{n} {s}" for s, n in m.workers.items())
    missing = m.workers_wanted - sum(m.workers.values())
    if m.age_ms is not None and missing > 0:
        workers = ", ".join(filter(None, (workers, f"{missing} missing")))
    return (
        m.machine_id,
        machine_status(m),
        f"{m.programs_up}/{m.programs}",
        workers or "-",
        "-" if m.age_ms is None else f"{age(m.age_ms)} ago",
        age(m.up_ms),
        m.health_url or "-",
    )


def machine_status(m: MachineNow) -> str:
    """Its status in a few words, with what is wrong with it."""
    if m.instance == "gone":
        word = f"not running: {m.engine}" if m.engine else "not running"
    elif m.engine:
        word = m.engine
    elif m.age_ms is None:
        word = m.status
    elif m.stale:
        word = f"silent (was {m.status})"
    else:
        word = f"{m.status}: {m.error}" if m.error else m.status
    if m.drained:
        word += f", drain{'ing' if m.workers else 'ed'}"
    return word if m.desired else f"{word}, not in emp.yaml"


def _workers(found: Overview, limit: int | None) -> str:
    from emp_orch.cli.output.text import table

    if found.difference is None or not found.workers:
        return ""
    workers = sorted(found.workers, key=lambda w: (w.report.machine_id, w.report.gpu))
    now_ms, stale_ms = found.difference.observed.now_ms, found.difference.desired.stale_after_ms
    well = [abs(now_ms - w.seen_ms) <= stale_ms and _well(w) for w in workers]
    shown, more = _cut(tuple(workers), limit, well, "worker", "idle or busy")
    rows = [_worker_row(w, now_ms, stale_ms) for w in shown]
    return table(("WORKER", "STATUS", "JOB", "DONE", "FAILED", "CONNECTORS"), rows) + more


def _well(worker: SeenWorker) -> bool:
    connectors = worker.report.connector_statuses.values()
    return worker.report.status in ("idle", "busy") and all(
        c.status in ("idle", "active") and not c.occupied_by for c in connectors
    )


def _connector(name: str, c: ConnectorReport) -> str:
    if c.occupied_by and c.status != "active":
        return f"{name} occupied ({c.occupied_by})"
    has = f"{c.models} models, {c.node_classes} node classes" if c.offers else ""
    about = "; ".join(words for words in (c.detail, has) if words)
    return f"{name} {c.status}{f' ({about})' if about else ''}"


def _worker_row(worker: SeenWorker, now_ms: int, stale_ms: int) -> tuple[str, ...]:
    from emp_orch.cli.output.text import age

    report = worker.report
    silent = abs(now_ms - worker.seen_ms) > stale_ms
    status = f"silent for {age(now_ms - worker.seen_ms)}" if silent else str(report.status)
    connectors = [_connector(name, c) for name, c in report.connector_statuses.items()]
    return (
        report.worker_id,
        status,
        # What a silent one was at may be done elsewhere by now.
        "-" if silent else report.current_job_id or "-",
        str(report.jobs_completed),
        str(report.jobs_failed),
        " · ".join(connectors) or "-",
    )


def _rest(found: Overview, limit: int | None) -> str:
    lines = []
    if found.jobs is not None:
        counts = [f"{n} {s}" for s, n in found.jobs.items() if n]
        lines.append(f"jobs   {' · '.join(counts) or 'none'}")
    lines += _drift_lines(found, limit)
    lines += [
        f"left   {o.machine_id or 'control plane'}: {o.program} (pid {o.pid}) runs on without its supervisord"
        for o in found.orphans
    ]
    return "\n".join(lines)


def _drift_lines(found: Overview, limit: int | None) -> list[str]:
    from emp_orch.cli.output.holds import waits
    from emp_orch.cli.output.text import age

    if found.difference is None:
        return [f"drift  unknown: {found.redis_error}"]
    drift = found.difference.drift
    if not drift:
        return ["drift  none"]
    shown = drift[:limit]
    lines = [
        f"  {d.drift.kind} {d.drift.subject}: {d.drift.desired} → {d.drift.observed}"
        f"{'' if d.age_ms is None else f', for {age(d.age_ms)}'} ({d.drift.cause})"
        f"{f'; waits: {waits(d)}' if d.hold is not None else ''}"
        for d in shown
    ]
    rest = len(drift) - len(shown)
    return [f"drift  {len(drift)}", *lines, *([f"  … and {rest} more: emp diff"] if rest else [])]


def _cut(items: tuple[Any, ...], limit: int | None, well: list[bool], what: str, when_well: str) -> tuple[Any, str]:
    """At most `limit` items, those that are not well first; and a line about the others."""
    if limit is None or len(items) <= limit:
        return items, ""
    ordered = [i for i, w in zip(items, well, strict=True) if not w]
    ordered += [i for i, w in zip(items, well, strict=True) if w]
    hidden = len(items) - limit
    bad = max(0, well.count(False) - limit)
    state = f"{bad} of them not {when_well}" if bad else f"all {when_well}"
    return tuple(ordered[:limit]), f"\n… and {hidden} more {what}s, {state}: emp status --all"


_GOOD = ("RUNNING", "ready", "idle", "busy", "answers", "everything runs")
_BAD = (
    "gone",
    "alone",
    "FATAL",
    "BACKOFF",
    "EXITED",
    "STOPPED",
    "ERROR",
    "nothing runs",
    "not running",
    "silent",
    "offline",
)
_WARN = ("partly", "STARTING", "starting", "configuring", "initializing", "missing", "no report", "error")


def painted(text: str) -> str:
    """The screen with its states coloured."""
    import re

    styles: dict[str, dict[str, Any]] = {
        **{w: {"fg": "green"} for w in _GOOD},
        **{w: {"fg": "red", "bold": True} for w in _BAD},
        **{w: {"fg": "yellow"} for w in _WARN},
    }
    words = "|".join(re.escape(w) for w in sorted(styles, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")
    lines = []
    for line in text.splitlines():
        if line[:1].isupper() and line.split("  ")[0].isupper():
            lines.append(click.style(line, dim=True))
        else:
            lines.append(pattern.sub(lambda m: click.style(m[0], **styles[m[0]]), line))
    return "\n".join(lines)
