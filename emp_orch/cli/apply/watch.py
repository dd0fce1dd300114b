"""`emp apply --watch`: apply, and again at each change of emp.yaml, .env and the files that hold secrets."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from emp_orch.cli.apply import publishing
from emp_orch.cli.apply.publishing import Asked, Declined, Published
from emp_orch.cli.output.progress import Progress
from emp_orch.errors import EmpError, Exit, UsageError

if TYPE_CHECKING:
    from emp_orch.control.checks.proposed import Proposal
    from emp_orch.control.host.filewatch import FileWatch
    from emp_orch.layout import Layout


def watch(path: Path, asked: Asked) -> None:
    """Apply the file at `path`, and again whenever it changes, until Ctrl-C. The first time every error is raised."""
    if not asked.yes and not sys.stdin.isatty():
        raise UsageError("there is nobody to ask at each change: stdin is not a terminal", hint="say yes with -y")
    with Progress() as progress:
        watching = _Watching(path, asked, progress)
        try:
            asyncio.run(watching.run())
        except (KeyboardInterrupt, click.Abort):
            if watching.number is None:
                raise
            progress.line(f"no longer watching; the fleet runs on with generation {watching.number}")


class _Watching:
    """`number` is the generation that this watch put in force last; None before the first."""

    def __init__(self, path: Path, asked: Asked, progress: Progress) -> None:
        self._path = path
        self._asked = asked
        self._progress = progress
        self._own = frozenset((path, path.with_name(".env")))
        self._told = ""
        self.number: int | None = None

    async def run(self) -> None:
        from emp_orch.control.host.filewatch import FileWatch

        with FileWatch() as files:
            files.watch(self._own)
            files.mark()
            layout, proposal = self._read(files)
            published = await self._publish(layout, proposal)
            await self._converge(files, layout, proposal, published)
            if not self._asked.as_json:
                publishing.where(layout, proposal)
            self._progress.line(f"watching {self._path.name}; Ctrl-C ends that, and the fleet runs on")
            while True:
                await files.changed()
                await self._again(files)

    def _read(self, files: FileWatch) -> tuple[Layout, Proposal]:
        from emp_orch import manifest
        from emp_orch.control.apply.proposal import read_proposal, secret_files

        # Before their values are read: a file that is missing is a change when it comes.
        fleet = manifest.load(self._path, os.environ)
        files.watch(self._own | secret_files(fleet, self._path.absolute().parent))
        return read_proposal(self._path, os.environ, here=True)

    async def _publish(self, layout: Layout, proposal: Proposal) -> Published:
        published = await publishing.put_in_force(layout, proposal, self._asked, self._progress)
        self.number = published.generation.number
        self._told = ""
        return published

    async def _again(self, files: FileWatch) -> None:
        """One change: read, publish, wait. Whatever is wrong is told, and the watch goes on."""
        files.mark()
        try:
            layout, proposal = self._read(files)
            published = await self._publish(layout, proposal)
        except Declined:
            await self._stays("declined", "not applied")
        except EmpError as e:
            await self._refused(e)
        else:
            await self._converge(files, layout, proposal, published)

    async def _converge(self, files: FileWatch, layout: Layout, proposal: Proposal, published: Published) -> None:
        """Wait until it is so, or until the next change makes that wait vain."""
        if self._asked.no_wait:
            return self._done(proposal, published, waited=False)
        progress, timeout = self._progress, self._asked.timeout
        waiting = asyncio.create_task(publishing.wait(layout, published.generation, timeout, progress), name="wait")
        changing = asyncio.create_task(files.changed(), name="change")
        try:
            await asyncio.wait((waiting, changing), return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                told = f"{self._path.name} changed before generation {published.generation.number} was ready"
                return self._tell("superseded", told, err=True)
            waiting.result()
        except EmpError as e:
            return self._failed(e)
        finally:
            for task in (waiting, changing):
                task.cancel()
            await asyncio.gather(waiting, changing, return_exceptions=True)
        return self._done(proposal, published, waited=True)

    def _done(self, proposal: Proposal, published: Published, *, waited: bool) -> None:
        line = publishing.headline(proposal, published, waited=waited)
        more = publishing.outcome(proposal, published, waited=waited)
        self._tell("unchanged" if published.unchanged else "applied", line, **more)

    def _failed(self, error: EmpError) -> None:
        """A generation that is in force and did not come true in time, or cannot be seen."""
        kind = "timeout" if error.exit_code is Exit.TIMEOUT else "failed"
        hint = f"\n     {error.hint}" if error.hint else ""
        self._tell(kind, f"{error.message}{hint}", err=True, error=error.message, hint=error.hint)

    async def _refused(self, error: EmpError) -> None:
        """An edit that nothing came of: every problem of it once, however often it is saved."""
        from emp_orch.manifest import ConfigError

        again, self._told = error.message == self._told, error.message
        invalid = isinstance(error, UsageError)
        problems = [p.text for p in error.problems] if isinstance(error, ConfigError) else [error.message]
        about = f"{self._path.name} cannot be applied" if invalid else "it did not work"
        text = "\n".join(problems + ([error.hint] if error.hint else [])).replace("\n", "\n  ")
        outcome = "invalid" if invalid else "failed"
        if again:
            about, text = f"{about}, as before", ""
        await self._stays(outcome, about, text, problems=problems, hint=error.hint)

    async def _stays(self, outcome: str, about: str, text: str = "", **more: Any) -> None:
        number = await self._in_force()
        rest = f":\n  {text}" if text else ""
        self._tell(outcome, f"{about}; generation {number} stays in force{rest}", err=True, **more)

    async def _in_force(self) -> int | None:
        """Somebody else may have published meanwhile; when nobody can tell, the last one of ours."""
        from emp_orch.control.apply.earlier_generations import in_force
        from emp_orch.layout import Layout

        with suppress(EmpError):
            self.number = (await in_force(Layout(self._path.absolute().parent))).number
        return self.number

    def _tell(self, outcome: str, text: str, *, err: bool = False, **more: Any) -> None:
        """One outcome: a line of JSON on stdout, or words."""
        if self._asked.as_json:
            said = json.dumps({"outcome": outcome, "generation": self.number, **more}, ensure_ascii=False)
            self._progress.document(said)
        else:
            self._progress.line(text, err=err)
