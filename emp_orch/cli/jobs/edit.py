"""`emp jobs retry`, `cancel` and `purge`: one job, or all that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.jobs.access import ENDED_STATUSES, Access, confirm, fleet_queue, plain, plural
from emp_orch.cli.output.options import Duration
from emp_orch.cli.output.text import age
from emp_orch.errors import EmpError, Exit, UsageError

if TYPE_CHECKING:
    from emp_orch.store.queue.reads import Wanted

AT_ONCE = 200
CANCELLABLE = ("pending", "assigned", "in_progress", "unworkable")
YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
REASON = "asked for by `emp cancel`"


async def _ids(access: Access, wanted: Sequence[Wanted]) -> list[str]:
    return [job_id for w in wanted for job_id in reversed(await access.queue.ids(w))]


async def _each(ids: Sequence[str], do: Callable[[str], Awaitable[str]]) -> Counter[str]:
    """Do it to many, some at a time; how often each outcome came."""
    import asyncio

    from rich.progress import MofNCompleteColumn

    from emp_orch.cli.jobs.wait import bar

    outcomes: Counter[str] = Counter()
    with bar(MofNCompleteColumn()) as shown:
        task = shown.add_task("jobs", total=len(ids))
        for at in range(0, len(ids), AT_ONCE):
            outcomes.update(await asyncio.gather(*(do(job_id) for job_id in ids[at : at + AT_ONCE])))
            shown.update(task, completed=outcomes.total())
    return outcomes


@click.command("retry", short_help="Run ended jobs again, at their old places.")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--all-failed", is_flag=True, help="Every job that failed or timed out.")
@click.option("--service", metavar="NAME", help="With --all-failed: only those for it.")
@YES
@click.pass_context
def retry(ctx: click.Context, job_ids: tuple[str, ...], all_failed: bool, service: str | None, yes: bool) -> None:
    """Run ended jobs again, at their old places and with all their attempts.

    Exit: 0 all are queued, 1 some are not.
    """
    import asyncio

    from emp_orch.jobs.document.states import JobStatus
    from emp_orch.store.queue.reads import Wanted
    from emp_orch.store.queue.submit import NoSuchJob, NotNow, SecretsForgotten

    if bool(job_ids) == all_failed:
        raise UsageError("name jobs, or say --all-failed", hint="emp jobs retry ID… | --all-failed [--service NAME]")
    if service is not None and not all_failed:
        raise UsageError("--service goes with --all-failed")

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            if not all_failed:
                await _named(job_ids, lambda job_id: _retry(access, job_id))
                return
            wanted = [Wanted(status=s, service=service) for s in (JobStatus.FAILED, JobStatus.TIMEOUT)]
            ids = await _ids(access, wanted)
            if not ids:
                click.echo("no job failed", err=True)
                return
            confirm(f"run {plural(len(ids))} again", yes=yes)

            async def again(job_id: str) -> str:
                try:
                    await access.queue.retry(job_id)
                except SecretsForgotten:
                    return "forgotten"
                except (NoSuchJob, NotNow):  # gone or retried meanwhile
                    return "not"
                return "done"

            done = await _each(ids, again)
            rest = f"; {plural(done['not'])} had gone meanwhile" if done["not"] else ""
            if done["forgotten"]:
                rest += f"; {plural(done['forgotten'])} had API keys, which are forgotten: submit them again"
            click.echo(f"{plural(done['done'])} queued again{rest}")

    asyncio.run(run())


async def _retry(access: Access, job_id: str) -> str:
    await access.queue.retry(job_id)
    return f"job {job_id} is queued again"


async def _named(job_ids: Sequence[str], do: Callable[[str], Awaitable[str]]) -> None:
    """Do it to each job a person named; one that cannot be done keeps no other from it. Exits 1 then."""
    if len(job_ids) == 1:
        click.echo(await do(job_ids[0]))
        return
    bad = 0
    for job_id in job_ids:
        try:
            click.echo(await do(job_id))
        except EmpError as e:
            bad += 1
            click.echo(f"emp: {plain(e.message)}", err=True)
    if bad:
        raise click.exceptions.Exit(Exit.FAILED)


@click.command("cancel", short_help="Cancel jobs, waiting or running.")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--service", metavar="NAME", help="All that wait for it, or of --status.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(CANCELLABLE),
    metavar="STATUS",
    help=f"All that are {', '.join(CANCELLABLE)}.",
)
@YES
@click.pass_context
def cancel(
    ctx: click.Context, job_ids: tuple[str, ...], service: str | None, statuses: tuple[str, ...], yes: bool
) -> None:
    """Cancel jobs: a waiting one at once; a running one is interrupted by its worker.

    With --service alone: all that wait for it. Exit: 0 done, 1 some had ended before.
    """
    import asyncio

    if bool(job_ids) == bool(service or statuses):
        raise UsageError("name jobs, or say which", hint="emp jobs cancel ID… | --service NAME | --status pending")
    folder: Path = ctx.obj

    async def run() -> None:
        async with fleet_queue(folder) as access:
            if job_ids:
                await _named(job_ids, lambda job_id: _cancel(access, job_id))
            else:
                await _cancel_all(access, service, statuses or ("pending", "unworkable"), yes=yes)

    asyncio.run(run())


async def _cancel(access: Access, job_id: str) -> str:
    from emp_orch.store.queue.submit import CancelOutcome

    match await access.queue.cancel(job_id, reason=REASON):
        case CancelOutcome.CANCELLED:
            return f"job {job_id} is cancelled"
        case CancelOutcome.REQUESTED:
            return f"job {job_id} runs; its worker was told to stop it"
        case CancelOutcome.ENDED:
            job = await access.queue.get(job_id)
            raise EmpError(f"job {job_id} had ended before: {job.status}")


async def _cancel_all(access: Access, service: str | None, statuses: Sequence[str], *, yes: bool) -> None:
    from emp_orch.jobs.document.states import JobStatus
    from emp_orch.store.queue.reads import Wanted
    from emp_orch.store.queue.submit import CancelOutcome, NoSuchJob

    ids = await _ids(access, [Wanted(status=JobStatus(s), service=service) for s in dict.fromkeys(statuses)])
    of = f"{' or '.join(statuses)}{f' for {service}' if service else ''}"
    if not ids:
        click.echo(f"no job is {of}", err=True)
        return
    confirm(f"cancel {plural(len(ids))} ({of})", yes=yes)

    async def one(job_id: str) -> str:
        try:
            return await access.queue.cancel(job_id, reason=REASON)
        except NoSuchJob:
            return CancelOutcome.ENDED

    outcomes = await _each(ids, one)
    told = [
        f"{plural(outcomes[outcome])} {words}"
        for outcome, words in (
            (CancelOutcome.CANCELLED, "cancelled"),
            (CancelOutcome.REQUESTED, "told to stop"),
            (CancelOutcome.ENDED, "had ended meanwhile"),
        )
        if outcomes[outcome]
    ]
    click.echo(", ".join(told))


@click.command("purge")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice(ENDED_STATUSES), help="Only those; else all ended."
)
@click.option("--older-than", type=Duration(), help="Those that ended longer ago: 90s, 5m, 1h, 7d.")
@click.option("--keep", type=click.IntRange(0), metavar="N", help="All but the newest N of each status.")
@YES
@click.pass_context
def purge(ctx: click.Context, statuses: tuple[str, ...], older_than: float | None, keep: int | None, yes: bool) -> None:
    """Forget ended jobs, with their results and artifacts. The reconciler does so too, by `jobs.keep` of emp.yaml."""
    import asyncio

    from emp_orch.jobs.document.states import JobStatus

    if (older_than is None) == (keep is None):
        which = "say --older-than or --keep" if keep is None else "say --older-than or --keep, not both"
        raise UsageError(which, hint="--keep 0 forgets all: emp jobs purge --keep 0")
    chosen = [JobStatus(s) for s in dict.fromkeys(statuses or ENDED_STATUSES)]
    how = (
        f"that ended more than {age(int(older_than * 1000))} ago"
        if older_than is not None
        else f"past the newest {keep:,}"
    )

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            counts = await access.queue.counts()
            there = ", ".join(f"{counts[s]:,} {s}" for s in chosen if counts[s])
            if not there:
                click.echo("no such jobs", err=True)
                return
            confirm(f"forget those of {there} jobs {how}, with their results and artifacts", yes=yes)
            gone = await access.queue.purge(chosen, older_than_s=older_than or 0, keep=keep or 0)
            click.echo(f"{plural(gone)} forgotten")

    asyncio.run(run())
