"""`emp jobs`: list jobs and show one; the group of all commands about jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from emp_orch.cli.jobs.access import STATUSES, fleet_queue, plural, print_job, print_json, short_json, terminal_width
from emp_orch.cli.jobs.edit import cancel, purge, retry
from emp_orch.cli.jobs.fetch import fetch, output_line
from emp_orch.cli.jobs.lanes import explain, lanes
from emp_orch.errors import UsageError

__all__ = ["cancel", "jobs"]


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a list."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print as JSON."),
        click.option("--offset", type=click.IntRange(0), default=0, help="Pass over so many."),
        click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many."),
        click.option("--worker", metavar="ID", help="Only those that it holds or ended."),
        click.option("--service", metavar="NAME", help="Only those for it."),
        click.option(
            "--status", type=click.Choice(STATUSES), metavar="STATUS", help=f"Only those: {', '.join(STATUSES)}."
        ),
    ):
        command = option(command)
    return command


@click.group("jobs", invoke_without_command=True)
@_filters
@click.pass_context
def jobs(ctx: click.Context, /, **asked: Any) -> None:
    """List jobs, newest first; or one of the commands below."""
    if ctx.invoked_subcommand is None:
        _list(ctx.obj, **asked)
        return
    typed = click.core.ParameterSource.COMMANDLINE
    given = [p.opts[0] for p in ctx.command.params if p.name and ctx.get_parameter_source(p.name) is typed]
    if given:
        where = ctx.invoked_subcommand
        raise UsageError(f"{', '.join(given)} stands before {where!r}", hint=f"options go after it: emp jobs {where} …")


@jobs.command("list")
@_filters
@click.pass_context
def list_(ctx: click.Context, /, **asked: Any) -> None:
    """List jobs, newest first, as `emp jobs` does."""
    _list(ctx.obj, **asked)


def _list(
    folder: Path, *, status: str | None, service: str | None, worker: str | None, limit: int, offset: int, as_json: bool
) -> None:
    import asyncio

    from emp_orch.cli.jobs.text import job_table
    from emp_orch.jobs.document.states import JobStatus
    from emp_orch.store.queue.reads import Wanted
    from emp_orch.store.redis.client import time_ms

    wanted = Wanted(status=JobStatus(status) if status else None, service=service, worker=worker)

    async def run() -> None:
        async with fleet_queue(folder) as access:
            page = await access.queue.find(wanted, limit=limit, offset=offset)
            if as_json:
                print_json({"total": page.total, "jobs": page.jobs, "counts": await access.queue.counts()})
                return
            if page.jobs:
                click.echo(job_table(page.jobs, await time_ms(access.redis), terminal_width()))
            if page.total > offset + len(page.jobs):
                click.echo(f"{len(page.jobs)} of {plural(page.total)}; --limit and --offset show more", err=True)
            elif not page.jobs:
                chosen = status or service or worker or offset
                none = "no such jobs; `emp jobs` lists all" if chosen else "no jobs; `emp submit SERVICE` queues one"
                click.echo(none, err=True)

    asyncio.run(run())


@jobs.command("show")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def show(ctx: click.Context, job_id: str, as_json: bool) -> None:
    """Show one job: where it is and why, its history, its result."""
    import asyncio

    from emp_orch import settings
    from emp_orch.cli.jobs.text import asked, field, input_words, local, under_way
    from emp_orch.layout import Layout

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            job = await access.queue.get(job_id)
            if as_json:
                print_job(job)
                return
            why = await access.explainer.why(job)
        width = terminal_width()
        click.echo(f"job {job.id}: {job.status}")
        if why != f"it is {job.status}":
            click.echo(field("why", why, width))
        if parts := under_way(job):
            click.echo(field("progress", " · ".join(parts), width))
        click.echo(field("asks for", asked(job.requirements), width))
        click.echo(f"  priority  {job.priority}, run {job.attempts} of {job.max_retries + 1}")
        if job.payload:
            click.echo(field("payload", short_json(job.payload), width))
        if job.secrets:
            click.echo(field("secrets", f"{', '.join(job.secrets)}, forgotten at its end", width))
        for name, source in job.inputs.items():
            click.echo(field("input", f"{name} {input_words(source)}", width))
        if job.worker_id:
            click.echo(f"  worker    {job.worker_id}")
        store = settings.load(Layout(ctx.obj)).artifacts
        for output in job.outputs:
            click.echo(f"  output    {output_line(job.id, output, store)}")
        if job.result and job.result.detail:
            click.echo(field("answer", short_json(job.result.detail), width))
        for entry in job.history:
            worker = f" {entry.worker_id}" if entry.worker_id else ""
            reason = f": {entry.reason}" if entry.reason else ""
            click.echo(field("history", f"{local(entry.at_ms)} {entry.event}{worker}{reason}", width))

    asyncio.run(run())


for _command in (explain, retry, cancel, purge, lanes, fetch):
    jobs.add_command(_command)
