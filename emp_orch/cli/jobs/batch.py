"""`emp submit -f`: the jobs of a file, queued some at a time and told as they are."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from redis import exceptions as rexc

from emp_orch.cli.jobs.access import Access, fleet_queue, plural
from emp_orch.cli.jobs.file import Placed, Source, opened
from emp_orch.cli.jobs.how import How, warn_of_strangers
from emp_orch.cli.jobs.inputs import placed as with_inputs
from emp_orch.cli.jobs.wait import Batch
from emp_orch.errors import EmpError, Exit, UsageError
from emp_orch.jobs.document.states import JobStatus
from emp_orch.store.queue.submit import BATCH, Submitted

MAX_CONFLICTS_TOLD = 20


async def many(how: How, file: str) -> Exit:
    """All of a file. With --wait a line is printed for each that ended, else for each that was queued."""

    def ended(job_id: str, status: JobStatus | None) -> None:
        _print_line(how, {"job_id": job_id, "status": status or "forgotten"})

    path = file if file == "-" else str(how.folder / file)
    with opened(path) as stream:
        async with fleet_queue(how.folder) as access:
            base = how.folder if file == "-" else Path(path).parent
            services = await access.services.now()
            source = Source(stream, file, services, base=base, start=how.start, once=how.once)
            sent = _Sent(how, source.check())
            after = await access.events.latest_id()
            batch = Batch(access, ended)
            try:
                await _send(how, access, source, sent, batch)
            except UsageError as e:
                raise UsageError(f"{e.message}; {plural(sent.count)} before it queued", hint=e.hint) from e
            except BaseException as e:
                sent.tell_where_it_stopped(e, batch)
                raise
            finally:
                sys.stdout.flush()
            click.echo(sent.summary(), err=True)
            if how.wait and batch.left:
                await batch.wait(after, how.timeout_s)
                click.echo(batch.summary(), err=True)
                if JobStatus.UNWORKABLE in batch.counts:
                    click.echo("`emp jobs lanes` says why no worker could run what is unworkable", err=True)
    return Exit.OK if not sent.conflicts and batch.all_completed else Exit.FAILED


async def _send(how: How, access: Access, source: Source, sent: _Sent, batch: Batch) -> None:
    known = set[str]()
    await warn_of_strangers(access, source.services, known)
    async for placed in source.batches():
        await warn_of_strangers(access, source.services, known)
        ready = await with_inputs(access, placed, source.base)
        rest: Sequence[Placed] = placed
        sent.asking = True
        async for done in access.queue.submit_batches(ready):
            how.sent = True
            sent.note([where for where, _ in rest[: len(done)]], done)
            rest = rest[len(done) :]
            taken = [d for d in done if d.same]
            if how.wait:
                batch.add(d.job_id for d in taken)
            else:
                for d in taken:
                    _print_line(how, {"job_id": d.job_id, "created": d.created, "status": d.status})
                sys.stdout.flush()
        sent.asking = False


def _print_line(how: How, fields: dict[str, Any]) -> None:
    if how.as_json:
        sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
    elif how.wait:
        sys.stdout.write(f"{fields['job_id']} {fields['status']}\n")
    else:
        sys.stdout.write(f"{fields['job_id']}\n")


class _Sent:
    """What became of the jobs of a file when they were queued. `total`: how many there are, where that is known."""

    def __init__(self, how: How, total: int | None) -> None:
        self.count = 0
        self.conflicts = 0
        self.asking = False
        self._how = how
        self._total = total
        self._at = how.start - 1
        self._created = 0

    def note(self, places: Iterable[str], done: Sequence[Submitted]) -> None:
        for where, one in zip(places, done, strict=True):
            self._at += 1
            self.count += one.same
            self._created += one.created
            if not one.same:
                self.conflicts += 1
                if self.conflicts <= MAX_CONFLICTS_TOLD:
                    click.echo(f"{where}: {one.job_id} is the id of another job; not queued", err=True)

    def summary(self) -> str:
        parts = [f"{plural(self._created)} queued"]
        if there := self.count - self._created:
            parts.append(f"{there:,} were there already")
        if self.conflicts:
            parts.append(f"{self.conflicts:,} not queued: their ids are those of other jobs")
        return "; ".join(parts)

    def tell_where_it_stopped(self, cause: BaseException, batch: Batch) -> None:
        """Before the error itself: which jobs are queued, and how to go on without queueing one of them again."""
        unsure = self.asking and not isinstance(cause, (rexc.ResponseError, EmpError))
        if not self.count and not unsure:
            return
        for job_id in batch.open:
            _print_line(self._how, {"job_id": job_id, "status": JobStatus.PENDING})
        of = "" if self._total is None else f" of {self._total:,}"
        more = f", and perhaps up to {BATCH} after them: no answer came" if unsure else ""
        way_out = f"go on with --from {self._at + 1}"
        if self._how.once:
            way_out = "submit it again: with --once what is queued stays as it is"
        elif unsure:
            way_out += ", once `emp jobs` shows that they are not"
        click.echo(f"{self._at:,}{of} jobs queued{more}; {way_out}", err=True)
