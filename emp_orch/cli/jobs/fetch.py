"""`emp jobs fetch`: what a job made, copied out of the artifact store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from emp_orch.cli.jobs.access import fleet_queue
from emp_orch.errors import EmpError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from emp_orch.jobs.document.model import Job, Output
    from emp_orch.jobs.document.outputs import Recorded
    from emp_orch.store.artifacts.store import Artifacts


def output_line(job_id: str, output: Recorded, artifacts_url: str) -> str:
    """One output for a person, with its path when the store is a folder of this host."""
    from emp_orch.jobs.document.outputs import safe_content_type, safe_name
    from emp_orch.store.artifacts.url import local_path

    path = local_path(artifacts_url, job_id, output)
    told = (
        f"{safe_name(output.name)} {safe_content_type(output.content_type)} {output.size} bytes sha256 {output.sha256}"
    )
    return f"{told} {path}" if path else told


@click.command("fetch", short_help="Copy what a job made into a folder.")
@click.argument("job_id")
@click.argument("name", required=False)
@click.option(
    *("-o", "--output", "folder"),
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where to; made when missing. Without it, here.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.pass_context
def fetch(ctx: click.Context, job_id: str, name: str | None, folder: Path, force: bool) -> None:
    """Copy the outputs of a job into DIR, or the one called NAME. Prints the path of each."""
    import asyncio

    from emp_orch import settings
    from emp_orch.layout import Layout
    from emp_orch.store.artifacts.store import Artifacts

    async def run() -> None:
        async with fleet_queue(ctx.obj) as access:
            job = await access.queue.get(job_id)
        wanted = _wanted(job, name)
        store = Artifacts(settings.load(Layout(ctx.obj)).artifacts)
        with _bar() as bar:
            for output in wanted:
                click.echo(await _copy(store, job_id, output, ctx.obj / folder, bar, force=force))

    asyncio.run(run())


def _wanted(job: Job, name: str | None) -> tuple[Output, ...]:
    """The outputs asked for. Raises EmpError when there are none, UsageError for a name it does not have."""
    outputs = job.outputs
    if not outputs:
        raise EmpError(f"job {job.id} has no outputs: it is {job.status}", hint=f"see `emp jobs show {job.id}`")
    found = tuple(o for o in outputs if name in (None, o.name))
    if not found:
        raise UsageError(f"job {job.id} has no output {name!r}", hint=f"it has {', '.join(o.name for o in outputs)}")
    return found


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


async def _copy(store: Artifacts, job_id: str, output: Output, folder: Path, bar: Progress, *, force: bool) -> Path:
    """The file, whole and with the recorded sha256; on any error nothing of it stays."""
    import hashlib

    await store.find(job_id, output)  # which checks the record, and so the name below
    target = folder / output.path.rpartition("/")[2]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _placed(target, force=force) as part, part.open("wb") as file:
            shown, digest = bar.add_task(target.name, total=output.size), hashlib.sha256()
            async for chunk in store.read(job_id, output):
                file.write(chunk)
                digest.update(chunk)
                bar.advance(shown, len(chunk))
            if digest.hexdigest() != output.sha256:
                raise EmpError(
                    f"{output.name} of job {job_id} was changed in the artifact store: its sha256 is "
                    f"{digest.hexdigest()}, recorded was {output.sha256}",
                    hint="`emp jobs retry` makes it anew",
                )
    except OSError as e:
        raise EmpError(f"cannot write {target}: {e.strerror or e}", hint="choose another folder with -o DIR") from e
    return target


@contextlib.contextmanager
def _placed(target: Path, *, force: bool) -> Iterator[Path]:
    """A path to write to, which becomes `target` in the end; without `force` never in place of a file."""
    reserved = False
    if not force:
        try:
            target.touch(exist_ok=False)
        except FileExistsError as e:
            raise EmpError(
                f"{target} is there already", hint="--force replaces it; -o DIR chooses another folder"
            ) from e
        reserved = True
    part = target.with_name(f".{target.name[:100]}.{os.getpid()}.part")
    try:
        yield part
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        if reserved:
            target.unlink(missing_ok=True)
        raise
