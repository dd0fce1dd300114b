"""`emp submit`: one job from options, or many from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.jobs.access import fleet_queue, json_option, plain, print_job, short_json
from emp_orch.cli.jobs.fetch import output_line
from emp_orch.cli.jobs.how import How, warn_of_strangers
from emp_orch.cli.output.options import Duration
from emp_orch.errors import EmpError, Exit, Unreachable, UsageError

if TYPE_CHECKING:
    from emp_orch.cli.jobs.sync import Ended
    from emp_orch.jobs.document.model import Job

# Options that make up one job, which -f reads from the file instead.
_ONE = (
    "payload",
    "inputs",
    "requirements",
    "priority",
    "max_retries",
    "job_id",
    "key",
    "customer",
    "workflow",
    "models",
)


@click.command("submit")
@click.argument("service", required=False)
@click.option("--payload", metavar="JSON|@FILE|-", help="What the service is to do.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=@FILE",
    help="A file for it: also @FOLDER/, NAME=https://…; several times.",
)
@click.option("--requirements", metavar="JSON|@FILE", help="What the worker must have.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model it must have; several times.")
@click.option("--customer", metavar="NAME", help="Whose job it is.")
@click.option(
    "--workflow",
    metavar="FILE.json|-|NAME",
    help="A workflow for ComfyUI, in any form, as the payload. Any other NAME: which workflow it belongs to.",
)
@click.option("--priority", type=int, help="Larger is earlier; 0 unless said.")
@click.option("--retries", "max_retries", type=int, help="How often a failed run is repeated.")
@click.option("--id", "job_id", help="An id of your own: submitting it again changes nothing.")
@click.option("--idempotency-key", "key", metavar="KEY", help="In place of --id: the id is made from it.")
@click.option("-f", "--file", "file", metavar="FILE|-", help="Many jobs: one JSON object a line, or a JSON list.")
@click.option("--from", "start", metavar="N", type=click.IntRange(min=1), help="Of -f: go on with its Nth job.")
@click.option("--once", is_flag=True, help="Of -f: a repeat queues nothing twice; ids are made from what a job says.")
@click.option("--wait", is_flag=True, help="Wait for the end, with progress.")
@click.option("--timeout", type=Duration(), help="Wait at most so long: 90s, 5m.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON; of -f, a line of JSON for each.")
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    file: str | None,
    start: int | None,
    once: bool,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **job: Any,
) -> None:
    """Queue a job for SERVICE, or all jobs of a file; print their ids.

    With --wait: exit 0 completed, 1 not completed or no worker could ever run it, 4 timed out.
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout goes with --wait")
    how = How(folder=ctx.obj, wait=wait, timeout_s=timeout, as_json=as_json, start=start or 1, once=once)
    if file is None and (start is not None or once):
        raise UsageError(f"{'--once' if once else '--from'} goes with -f", hint="--id makes one job the same again")
    try:
        if file is not None:
            given = [name for name in ("service", *_ONE) if job[name] not in (None, ())]
            if given:
                raise UsageError(
                    f"-f stands in place of {', '.join(given)}", hint="each line of the file is a whole job"
                )
            import asyncio

            from emp_orch.cli.jobs.batch import many

            code = asyncio.run(many(how, file))
        else:
            code = _single(how, _asked(ctx.obj, **job))
    except (KeyboardInterrupt, Unreachable):
        if wait and how.sent:
            click.echo("what was submitted stays queued; `emp jobs` lists it, `emp cancel ID` ends it", err=True)
        raise
    ctx.exit(code)


def _asked(
    folder: Path,
    *,
    service: str | None,
    payload: str | None,
    requirements: str | None,
    key: str | None,
    job_id: str | None,
    models: tuple[str, ...],
    inputs: tuple[str, ...],
    **more: Any,
) -> dict[str, Any]:
    """A job as parse_submission takes it, from the options."""
    if service is None:
        raise UsageError("say which service", hint="emp submit SERVICE …, or emp submit -f FILE")
    asked: dict[str, Any] = {"service": service, "id": job_id, "idempotency_key": key}
    workflow = more["workflow"]
    if workflow is not None and _is_file(workflow):
        if payload is not None:
            raise UsageError("--workflow and --payload are both the payload; give one of the two")
        asked["payload"] = json_option("--workflow", workflow if workflow == "-" else f"@{workflow}", folder)
        workflow = None
    elif payload is not None:
        asked["payload"] = json_option("--payload", payload, folder)
    if inputs:
        from emp_orch.cli.jobs.inputs import given

        asked["inputs"] = given(inputs, folder)
    for name in ("priority", "max_retries"):
        if more[name] is not None:
            asked[name] = more[name]
    wanted = {} if requirements is None else json_option("--requirements", requirements, folder)
    short = {"models": list(models) or None, "customer": more["customer"], "workflow": workflow}
    for name, value in short.items():
        if value is None:
            continue
        if not isinstance(wanted, dict):
            break
        if name in wanted:
            raise UsageError(f"{name} is given twice: by --requirements and by an option of its own")
        wanted = {**wanted, name: value}
    if requirements is not None or wanted:
        asked["requirements"] = wanted
    return {name: value for name, value in asked.items() if value is not None}


def _is_file(workflow: str) -> bool:
    """Whether --workflow names the file of a workflow, and not the workflow that the job belongs to."""
    return workflow == "-" or workflow.endswith(".json")


def _single(how: How, asked: dict[str, Any]) -> Exit:
    """One job. Where the API is up, a short one has ended before redis-py were imported."""
    brings_files = any("file" in source for source in asked.get("inputs", {}).values())
    if how.wait and not how.as_json and not brings_files:
        from emp_orch.cli.jobs import sync

        if "idempotency_key" not in asked:
            asked.setdefault("id", sync.new_id())
        quick = sync.submitted(how.folder, asked, how.timeout_s)
        how.sent = quick is not None
        if quick is not None and quick.job is not None:
            there = "" if quick.created else " was there already"
            click.echo(f"job {quick.job_id}{there}", err=True)
            return _tell(quick.job, how)
    import asyncio

    return asyncio.run(_one(how, asked))


async def _one(how: How, asked: dict[str, Any]) -> Exit:
    from emp_orch.cli.jobs.wait import wait_for
    from emp_orch.jobs.document.submission import BadSubmission, parse_submission

    async with fleet_queue(how.folder) as access:
        submission = parse_submission(asked, await access.services.now(), files=True)
        if submission.inputs:
            from emp_orch.cli.jobs.inputs import unreadable

            if problems := list(unreadable(submission, how.folder)):
                raise BadSubmission(problems)
        await warn_of_strangers(access, [submission.service], set())
        if submission.inputs:
            from emp_orch.cli.jobs.inputs import placed

            (submission,) = await placed(access, [("", submission)], how.folder)
        after = await access.events.latest_id()
        sent = await access.queue.submit(submission)
        if not sent.same:
            raise EmpError(
                f"{sent.job_id} is the id of another job, which is {sent.status}",
                hint=f"`emp jobs show {sent.job_id}` shows it; choose another --id or --idempotency-key",
            )
        if not sent.created and not how.sent:
            click.echo(f"job {sent.job_id} was there already: {sent.status}", err=True)
        how.sent = True
        if not how.wait:
            print_job(await access.queue.get(sent.job_id)) if how.as_json else click.echo(sent.job_id)
            return Exit.OK
        click.echo(f"job {sent.job_id}", err=True)
        job = await wait_for(access, sent.job_id, after, how.timeout_s)
    return _tell(job, how)


def _tell(job: Job | Ended, how: How) -> Exit:
    print_job(job) if how.as_json else click.echo(_ended(job, how.folder))
    if job.status == "unworkable":
        click.echo(f"it stays queued until a worker could run it; `emp cancel {job.id}` ends it", err=True)
    return Exit.OK if job.status == "completed" else Exit.FAILED


def _ended(job: Job | Ended, folder: Path) -> str:
    from emp_orch import settings
    from emp_orch.layout import Layout

    failure = f": {plain(job.error.message)}" if job.error else ""
    store = settings.load(Layout(folder)).artifacts
    lines = [f"job {job.id} {job.status}{failure}"]
    lines += [f"  {output_line(job.id, o, store)}" for o in job.outputs]
    if job.result and job.result.detail:
        lines.append(f"  answer {short_json(job.result.detail)}")
    return "\n".join(lines)
