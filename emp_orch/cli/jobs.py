"""`emp submit`, `emp jobs`, `emp cancel`: the queue from a shell."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.errors import EmpError, Exit, UsageError, WaitTimeout

if TYPE_CHECKING:
    from emp_orch.jobs.model import Job, JobSummary
    from emp_orch.store.queue import Queue

STATUSES = ("pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable")
# While waiting, the job is read again when an event names it, and otherwise this often.
RECHECK_MS = 2_000


@asynccontextmanager
async def _fleet_queue(folder: Path) -> AsyncIterator[tuple[Queue, Any]]:
    """The queue of the fleet in `folder`, and its events."""
    from emp_orch import settings
    from emp_orch.layout import Layout
    from emp_orch.store.connect import TRANSIENT, connected, unreachable
    from emp_orch.store.events import Events
    from emp_orch.store.keys import Keys
    from emp_orch.store.queue import Queue

    told = settings.load(Layout(folder))
    keys = Keys(told.prefix)
    async with connected(told.redis_url) as r:
        try:
            yield Queue(r, keys), Events(r, keys)
        except BrokenPipeError:
            raise  # of standard output, not of Redis
        except TRANSIENT as e:
            raise unreachable(told.redis_url, e) from e


def _json_option(name: str, text: str) -> Any:
    """The value of an option: JSON, `@file`, or `-` for standard input."""
    import msgspec

    where = name
    try:
        if text == "-":
            where, text = "standard input", sys.stdin.read()
        elif text.startswith("@"):
            where = text[1:]
            text = Path(where).read_text(encoding="utf-8")
        return msgspec.json.decode(text)
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{name}: cannot read {where}: {e}") from e
    except msgspec.DecodeError as e:
        raise UsageError(f"{name}: {where} is not JSON: {e}") from e


def _print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@click.command("submit")
@click.argument("service")
@click.option("--payload", default="{}", metavar="JSON|@FILE|-", help="What the service is to do.")
@click.option("--requirements", default=None, metavar="JSON|@FILE", help="What the worker must have.")
@click.option("--priority", type=int, default=0, show_default=True, help="Larger is earlier.")
@click.option("--retries", "max_retries", type=int, default=None, help="How often a failed run is repeated.")
@click.option("--id", "job_id", default=None, help="An id of your own: submitting it again changes nothing.")
@click.option("--wait", "wait", is_flag=True, help="Wait for the end, with progress.")
@click.option("--timeout", type=click.FloatRange(min=0), default=None, help="Wait at most so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_context
def submit(
    ctx: click.Context,
    service: str,
    payload: str,
    requirements: str | None,
    priority: int,
    max_retries: int | None,
    job_id: str | None,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Queue a job for SERVICE. With --wait: exit 0 completed, 1 not completed, 4 timed out."""
    import asyncio

    from emp_orch.jobs import parse_submission

    asked: dict[str, Any] = {"service": service, "payload": _json_option("--payload", payload), "priority": priority}
    if requirements is not None:
        asked["requirements"] = _json_option("--requirements", requirements)
    if max_retries is not None:
        asked["max_retries"] = max_retries
    if job_id is not None:
        asked["id"] = job_id
    submission = parse_submission(asked)

    async def run() -> Exit:
        async with _fleet_queue(ctx.obj) as (queue, events):
            after = await events.latest_id()
            sent = await queue.submit(submission)
            if not sent.created:
                click.echo(f"job {sent.job_id} was there already: {sent.status}", err=True)
            if not wait:
                job = await queue.get(sent.job_id)
                _print_json(job) if as_json else click.echo(sent.job_id)
                return Exit.OK
            job = await _wait(queue, events, sent.job_id, after, timeout)
            _print_json(job) if as_json else click.echo(_ended(job))
            return Exit.OK if job.status == "completed" else Exit.FAILED

    sys.exit(asyncio.run(run()))


async def _wait(queue: Queue, events: Any, job_id: str, after: str, within_s: float | None) -> Job:
    """The job at its end. Raises WaitTimeout with the reason why it is not there yet."""
    import asyncio

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from emp_orch.jobs.states import ENDED

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(f"job {job_id}", total=1.0)
        try:
            async with asyncio.timeout(within_s):
                while True:
                    job = await queue.get(job_id)
                    words = job.progress.message if job.progress else ""
                    done = job.progress.fraction if job.progress else 0.0
                    bar.update(shown, completed=done, description=f"{job.status} {words}".strip())
                    if job.status in ENDED:
                        return job
                    after = await _next_change(events, job_id, after)
        except TimeoutError:
            pass
    job = await queue.get(job_id)
    if job.status in ENDED:
        return job
    raise WaitTimeout(
        f"job {job_id} is still {job.status} after {within_s:g} s: {await queue.why(job)}",
        hint=f"it stays queued; `emp jobs show {job_id}` looks again, `emp cancel {job_id}` ends it",
    )


async def _next_change(events: Any, job_id: str, after: str) -> str:
    """Wait for the next event of this job, at most RECHECK_MS; the id to go on from."""
    import asyncio

    deadline = asyncio.get_running_loop().time() + RECHECK_MS / 1000
    while (left := deadline - asyncio.get_running_loop().time()) > 0:
        batch = await events.since(after, block_ms=max(1, int(left * 1000)))
        if batch:
            after = batch[-1].id
        if any(e.data.get("job_id") == job_id for e in batch):
            break
    return after


def _ended(job: Job) -> str:
    if job.error is not None:
        return f"job {job.id} {job.status}: {job.error.message}"
    lines = [f"job {job.id} {job.status}"]
    for output in job.result.outputs if job.result else ():
        where = f" {output.url}" if output.url else ""
        lines.append(f"  {output.name} {output.content_type} {output.size} bytes sha256 {output.sha256}{where}")
    return "\n".join(lines)


@click.group("jobs", invoke_without_command=True)
@click.option("--status", type=click.Choice(STATUSES), default=None, help="Only those.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def jobs(ctx: click.Context, status: str | None, limit: int, as_json: bool) -> None:
    """List jobs, newest first. `emp jobs show ID` shows one."""
    if ctx.invoked_subcommand is not None:
        return
    import asyncio

    from emp_orch.jobs.states import JobStatus

    async def run() -> None:
        async with _fleet_queue(ctx.obj) as (queue, _):
            page = await queue.list(status=JobStatus(status) if status else None, limit=limit)
            if as_json:
                _print_json({"total": page.total, "jobs": page.jobs, "counts": await queue.counts()})
                return
            if page.jobs:
                click.echo(_table(page.jobs))
            if page.total > len(page.jobs):
                click.echo(f"{len(page.jobs)} of {page.total} jobs; --limit shows more", err=True)
            if not page.jobs:
                click.echo("no jobs; `emp submit SERVICE` queues one", err=True)

    asyncio.run(run())


def _table(jobs: tuple[JobSummary, ...]) -> str:
    from emp_orch.cli.text import table

    head = ("JOB", "SERVICE", "STATUS", "PRIORITY", "RUN", "WORKER", "CREATED", "NOTE")
    rows = [
        (
            *(job.id, job.service, job.status, str(job.priority), f"{job.attempts}/{job.max_retries + 1}"),
            *(job.worker_id or "-", _local(job.created_ms), _note(job)),
        )
        for job in jobs
    ]
    return table(head, rows)


def _local(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _note(job: JobSummary) -> str:
    if job.cancel_requested:
        return "cancellation asked for"
    if job.error is not None:
        return job.error.message.splitlines()[0][:100] if job.error.message else ""
    if job.progress is not None and job.status == "in_progress":
        return f"{job.progress.fraction:.0%} {job.progress.message}"
    return ""


@jobs.command("show")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def show(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show one job: where it is and why, its history, its result."""
    import asyncio

    async def run() -> None:
        async with _fleet_queue(ctx.obj) as (queue, _):
            job = await queue.get(job_id)
            if as_json:
                _print_json(job)
                return
            click.echo(f"job {job.id}: {job.status}")
            click.echo(f"  why       {await queue.why(job)}")
            click.echo(
                f"  service   {job.service}, priority {job.priority}, run {job.attempts} of {job.max_retries + 1}"
            )
            if job.worker_id:
                click.echo(f"  worker    {job.worker_id}")
            for output in job.result.outputs if job.result else ():
                click.echo(
                    f"  output    {output.name} {output.content_type} {output.size} bytes sha256 {output.sha256}"
                )
            for entry in job.history:
                worker = f" {entry.worker_id}" if entry.worker_id else ""
                reason = f": {entry.reason}" if entry.reason else ""
                click.echo(f"  {_local(entry.at_ms)} {entry.event}{worker}{reason}")

    asyncio.run(run())


@click.command("cancel")
@click.argument("job_id")
@click.pass_context
def cancel(ctx: click.Context, job_id: str) -> None:
    """Cancel a job: a waiting one at once; a running one is interrupted by its worker."""
    import asyncio

    async def run() -> None:
        from emp_orch.store.queue import CancelOutcome

        async with _fleet_queue(ctx.obj) as (queue, _):
            match await queue.cancel(job_id, reason="asked for by `emp cancel`"):
                case CancelOutcome.CANCELLED:
                    click.echo(f"job {job_id} is cancelled")
                case CancelOutcome.REQUESTED:
                    click.echo(f"job {job_id} runs; its worker was told to stop it")
                case CancelOutcome.ENDED:
                    job = await queue.get(job_id)
                    raise EmpError(f"job {job_id} had ended before: {job.status}")

    asyncio.run(run())
